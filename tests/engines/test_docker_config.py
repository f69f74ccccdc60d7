"""Docker's daemon.json, however it is written: changed by ours alone, and given back."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shim.engines.docker import config as daemonjson
from shim.engines.registration import changes
from shim.engines.registration.changes import edit

ENTRY = {"path": "/opt/seccomp-shim/bin/seccomp-shim-runtime", "runtimeArgs": ["--real-runtime"]}


def _values() -> st.SearchStrategy[Any]:
    plain = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5)
    return st.recursive(
        plain,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=5,
    )


def _names() -> st.SearchStrategy[str]:
    ours = {"runtimes", "default-runtime", "seccomp-profile"}
    odd = st.sampled_from(["a", "runtimes/seccomp-shim", "", "~1", 'quo"te'])
    return (st.text(max_size=6) | odd).filter(lambda key: key.lower() not in ours)


@st.composite
def _trees(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a daemon.json, with or without runtimes and a default of its own."""
    tree: dict[str, Any] = draw(st.dictionaries(_names(), _values(), max_size=4))
    if draw(st.booleans()):
        name = st.text(max_size=4).filter(lambda key: key != "seccomp-shim")
        entry = st.fixed_dictionaries({"path": st.text(max_size=4)})
        tree["runtimes"] = draw(st.dictionaries(name, entry, max_size=2))
    if draw(st.booleans()):
        tree["default-runtime"] = draw(st.sampled_from(["runc", "nvidia"]))
    return dict(draw(st.permutations(list(tree.items()))))


@st.composite
def _layouts(draw: st.DrawFn, tree: dict[str, Any]) -> bytes:
    """Draw a way to write ``tree``."""
    indent = draw(st.sampled_from([None, 0, 1, 2, 4, "\t"]))
    spaces = draw(st.sampled_from(["", " ", "  "]))
    separators = draw(st.sampled_from([",", ", "])), f":{spaces}"
    escaped = draw(st.booleans())
    text = json.dumps(tree, indent=indent, separators=separators, ensure_ascii=escaped)
    text = draw(st.sampled_from(["", "\n", " \n\n"])) + text
    text += draw(st.sampled_from(["", "\n", "\n\n"]))
    if draw(st.booleans()) and indent is not None:
        text = text.replace("\n", "\r\n")
    mark = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"]))
    return mark + text.encode()


def _daemon_without(path: Path, now: bytes, original: bytes | None) -> bytes | None:
    return daemonjson.without(now, original, str(path), lambda path: path == "/our/profile")


def _installed(path: Path, state: Path, *, default: bool, profile: str) -> bytes:
    """Install into ``path`` as docker.py does; give the log's path too."""
    now = changes.content(path)
    config = daemonjson.read(now, str(path))
    after = daemonjson.merged(config, ENTRY, default, profile)
    log = str(state.parent / "log")
    changes.apply("docker", [edit(path, after)], _daemon_without, state, log)
    return after


def _rolled_back(path: Path, state: Path) -> None:
    edits = changes.rolling_back("docker", [path], _daemon_without, state)
    changes.roll_back("docker", edits, state, str(state.parent / "log"))


@settings(max_examples=50)  # each waits for the disk several times
@given(data=st.data(), default=st.booleans(), profile=st.sampled_from(["", "/our/profile"]))
def test_install_and_uninstall_are_the_identity(
    data: st.DataObject, default: bool, profile: str
) -> None:
    """Any daemon.json comes back byte for byte, with the record and without it."""
    tree = data.draw(_trees())
    before = data.draw(_layouts(tree))
    with tempfile.TemporaryDirectory() as folder:
        path, state = Path(folder) / "daemon.json", Path(folder) / "state" / "engines"
        path.write_bytes(before)
        after = _installed(path, state, default=default, profile=profile)
        assert json.loads(after.removeprefix(b"\xef\xbb\xbf")) == tree | {
            "runtimes": tree.get("runtimes", {}) | {"seccomp-shim": ENTRY},
            **({"default-runtime": "seccomp-shim"} if default else {}),
            **({"seccomp-profile": profile} if profile else {}),
        }
        assert _installed(path, state, default=default, profile=profile) == after
        _rolled_back(path, state)
        assert path.read_bytes() == before
        if path.read_bytes().strip(b"\xef\xbb\xbf \r\n") != b"{}":
            assert _same(_daemon_without(path, after, before), before)


@settings(max_examples=50)  # each waits for the disk several times
@given(data=st.data(), default=st.booleans(), profile=st.sampled_from(["", "/our/profile"]))
def test_foreign_edits_survive_and_exactly_ours_goes(
    data: st.DataObject, default: bool, profile: str
) -> None:
    """After any edit and new layout in between, what remains is that edit without our entries."""
    tree = data.draw(_trees())
    with tempfile.TemporaryDirectory() as folder:
        path, state = Path(folder) / "daemon.json", Path(folder) / "state" / "engines"
        path.write_bytes(data.draw(_layouts(tree)))
        after = _installed(path, state, default=default, profile=profile)
        edited = json.loads(after.removeprefix(b"\xef\xbb\xbf"))
        wanted = dict(tree)
        for key, value in data.draw(st.dictionaries(_names(), _values(), max_size=3)).items():
            edited[key] = wanted[key] = value
        for key in data.draw(st.sets(st.sampled_from(sorted(tree) or [""]))) - {
            "runtimes", "default-runtime",
        }:  # fmt: skip
            edited.pop(key, None)
            wanted.pop(key, None)
        path.write_bytes(data.draw(_layouts(edited)))
        _rolled_back(path, state)
        assert _tree(path.read_bytes()) == wanted


def _tree(data: bytes | None) -> Any:
    assert data is not None
    return json.loads(data.removeprefix(b"\xef\xbb\xbf"))


def _same(data: bytes | None, other: bytes) -> bool:
    return bool(_tree(data) == _tree(other))
