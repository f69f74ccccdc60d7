"""One bad file among many: it is named and counted, and the others are looked at all the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shim import log
from shim.cli import main
from shim.discovery.collector import Lines
from shim.discovery.sources import compose
from shim.errors import ShimError
from shim.profile import contents
from shim.profile.yamltext import nodes
from support.fleet import DENYING, Host, options
from support.profiles import ALLOW, ERRNO
from support.resources import HEAD

TOP = HEAD.removesuffix("spec:\n")
NAME_AND_NAMES = json.dumps(
    {
        "defaultAction": "SCMP_ACT_KILL",
        "architectures": ["SCMP_ARCH_ARM"],
        "syscalls": [{"names": ["write"], "name": "read", "action": ALLOW}],
    }
)
BOOLEAN_KEY = f"{TOP}spec: {{defaultAction: {ERRNO}, syscalls: [{{on: {ALLOW}, names: [read]}}]}}"
# What YAML 1.1 makes something else of than a string, or what stands for something else.
ODD = (
    *("on", "no", "y", "null", "~", "1", "0x1f", "0b", "1_0", "12:30", "1.5", ".nan", "-.inf"),
    *("1e999", "2020-01-01", "2020-01-01T00:00:00Z", '"on"', "''", "!!binary AA==", "!!int x"),
    *("!!bool on", "!!float 1", "!x y", "&a b", "*a", "=", "<<", "!!null ''", "1:" * 60 + "1.5"),
)
KEYS = (
    *("kind", "apiVersion", "metadata", "name", "names", "spec", "items", "data", "services"),
    *("security_opt", "defaultAction", "syscalls", "action", "args", "archMap", "linux", "index"),
    *("includes", "architectures", "seccompProfile", "localhostProfile", "annotations", "extends"),
)
VALUES = (
    *("SeccompProfile", "List", ERRNO, ALLOW, "seccomp:./p.json", "'seccomp=p.json'", "Pod"),
    *("security-profiles-operator.x-k8s.io/v1beta1", "SCMP_ARCH_X86_64", "read", "p.json"),
    """'{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}'""",
)
_scalars = st.sampled_from(ODD + VALUES)
_keys = st.sampled_from(KEYS) | st.sampled_from(ODD) | st.sampled_from(("<<",))


def _mapping(pairs: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{key} : {value}" for key, value in pairs) + "}"


_flow = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]")
        | st.lists(st.tuples(_keys, inner), max_size=4).map(_mapping)
    ),
    max_leaves=12,
)
_documents = st.lists(st.tuples(_keys, _flow), min_size=1, max_size=5).map(
    lambda pairs: "".join(f"{key} : {value}\n" for key, value in pairs)
)


@settings(max_examples=150, deadline=None)
@given(_documents, st.sampled_from(("", TOP, "services:\n x: {security_opt: [seccomp:p]}\n")))
@example("on: {defaultAction: 1}\n", TOP)
@example(f"syscalls: [{{on: 1, action: {ALLOW}}}]\ndefaultAction: {ERRNO}\n", "")
@example("{1: a, spec: 2}\n", "")
@example(f"a: {'1:' * 200}1.5\n# defaultAction\n", "")
def test_no_key_is_too_odd(tmp_path_factory: pytest.TempPathFactory, text: str, head: str) -> None:
    """Whatever YAML makes of keys and values, a file is read or refused in words of ours."""
    whole = head + text
    if head == TOP:
        contents_of(whole)
    host = Host(tmp_path_factory.mktemp("host"))
    host.write("srv/app/compose.yaml", whole + "# security_opt seccomp")
    host.write("etc/kubernetes/a.yaml", whole + "# localhostProfile")
    host.write("etc/docker/profile.yaml", whole + "# defaultAction")
    good = host.write("etc/docker/good.json")
    found = host.survey()
    assert not [each for each in found.found if ".py:" in each.reason]
    assert str(good) in [each.real for each in found.files]


def contents_of(text: str) -> None:
    """Read a file's profiles; nothing but a ShimError may come of it."""
    try:
        contents.read(text.encode(), "file")
    except ShimError as error:
        assert "file" in str(error)  # noqa: PT017 - either way is right


@pytest.mark.parametrize("bad", [NAME_AND_NAMES, BOOLEAN_KEY, "no profile", "{", None])
@pytest.mark.parametrize("verb", ["find", "patch --all --yes --when always"])
def test_others_go_on(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bad: str | None,
    verb: str,
) -> None:
    """A file that no engine could use is named and counted, the rest is done, exit status 1."""
    host = Host(tmp_path)
    monkeypatch.setattr(log, "path", lambda: host.log)
    opts = "[seccomp:bad.json, seccomp:good.json]"
    host.write("srv/app/compose.yaml", f"services: {{web: {{security_opt: {opts}}}}}")
    good = host.write("srv/app/good.json")
    if bad is not None:
        host.write("srv/app/bad.json", bad)
    state = ["--state", host.state] if "patch" in verb else []
    assert main([*verb.split(), "--root", str(host.root), *state]) == 1
    told = capsys.readouterr()
    assert "/srv/app/bad.json" in told.out
    assert "1 file invalid" in told.err
    assert "/srv/app/good.json" in told.out
    assert (good.read_bytes() == DENYING) is (verb == "find")


def test_bad_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings that cannot be read are named and counted, and stop nothing."""
    host = Host(tmp_path)
    host.write("srv/a/compose.yaml", "services: {a: {security_opt: [seccomp:p]}\n*")
    host.write("etc/docker/daemon.json", "{")
    host.write("etc/containers/containers.conf", "seccomp_profile = [")
    host.write("etc/kubernetes/a.yaml", "localhostProfile: [")
    host.write("srv/b/compose.yaml", "#" * (2 << 20) + "x")
    host.write("etc/docker/good.json")
    assert main(["find", "--root", str(host.root)]) == 1
    told = capsys.readouterr()
    assert "5 files invalid" in told.err
    assert "/srv/b/compose.yaml: is larger than 2 MiB" in told.err
    assert "/etc/docker/good.json" in told.out


def test_defect_of_ours(host_with: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a defect of ours that one file brings to light is told as that file's error."""

    def broken(data: bytes, where: str) -> Any:
        if where.endswith("1.json"):
            raise KeyError("defect")
        return contents.read(data, where)

    monkeypatch.setattr("shim.discovery.profile_state.read", broken)
    found = host_with.survey()
    assert [each.state for each in found.found] == ["denies by default", "invalid"]
    assert "KeyError" in found.found[1].reason


@pytest.fixture
def host_with(tmp_path: Path) -> Host:
    """Return a host with two profiles that differ."""
    host = Host(tmp_path)
    host.profiles(1)
    host.write("var/lib/kubelet/seccomp/1.json", DENYING + b"\n")
    return host


def test_each_text_is_gone_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many services name profiles, the lines of a compose file are counted once."""
    host = Host(tmp_path)
    services = "".join(f" s{n}: {{security_opt: ['seccomp:p{n}']}}\n" for n in range(50))
    host.write("srv/a/compose.yaml", f"services:\n{services}")
    made = []

    class Counted(Lines):
        def __init__(self, text: str) -> None:
            made.append(text)
            super().__init__(text)

    monkeypatch.setattr(compose, "Lines", Counted)
    found = host.survey().found
    assert len(made) == 1
    assert {each.file: each.uses for each in found} == {
        f"/srv/a/p{n}": ((f"service s{n}", f"/srv/a/compose.yaml:{n + 2}"),) for n in range(50)
    }


def test_a_stream_is_scanned_for_dashes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many profiles a YAML stream has, its tokens are read once for all their edits."""
    from shim.profile.edit_contents import patch, planned

    rule = f"spec:\n  defaultAction: {ERRNO}\n  syscalls:\n  - action: {ALLOW}\n    names: [read]\n"
    text = "---\n".join(TOP.replace("name: mine", f"name: a{n}") + rule for n in range(30))
    scans = []

    def scan(*args: Any, **more: Any) -> Any:
        scans.append(args)
        return real(*args, **more)

    real = yaml.scan
    monkeypatch.setattr(yaml, "scan", scan)
    read = contents.read(text.encode(), "file")
    patched = patch(read, planned(read, *options()[:-1]))
    assert patched.text.count("uretprobe") == 30
    assert len(scans) == 1


def test_a_long_number_is_a_text() -> None:
    """What YAML 1.1 could take for a number to the base 60 is not computed at any length."""
    [root] = nodes.parse(f"a: {'1:' * 300_000}1\nb: !!int {'1' * 50}\nc: 1:1\n")
    tree: Any = nodes.tree(root)
    assert isinstance(tree["a"], str)
    assert tree["b"] == int("1" * 50)
    assert tree["c"] == 61
    with pytest.raises(nodes.NotYAML, match="not what its tag says"):
        nodes.parse(f"!!int {'1:' * 300_000}1")
