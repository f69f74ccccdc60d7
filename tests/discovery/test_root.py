"""A root in a directory: nothing in it leads out, nothing in it is endless."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.discovery import root as room
from shim.discovery.root import Root
from shim.errors import ShimError
from shim.profile.document import MAX_BYTES

_steps = st.lists(st.sampled_from(["..", ".", "", "in", "out", "up", "self", "file"]), max_size=8)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return a root with links that try to lead out, beside a file that none may reach."""
    (tmp_path / "secret").write_text("no")
    top = tmp_path / "root"
    (top / "in").mkdir(parents=True)
    (top / "in" / "file").write_text("yes")
    (top / "out").symlink_to("../../..")
    (top / "up").symlink_to("/in/..")
    (top / "self").symlink_to("self")
    (top / "absolute").symlink_to("/in/file")
    (top / "stolen").symlink_to(tmp_path / "secret")
    return top


def test_links_stay_inside(top: Path) -> None:
    """Absolute links and ``..`` are followed as a process in a chroot would follow them."""
    root = Root(str(top))
    assert root.real("/absolute") == root.real("up/../in/file") == str(top / "in" / "file")
    assert root.read("/absolute") == b"yes"
    assert root.real("/out/secret") == str(top / "secret")
    with pytest.raises(FileNotFoundError):
        root.read("/stolen")
    with pytest.raises(ShimError, match="loop"):
        root.real("/self")
    assert root.shown(str(top / "in")) == "/in"


@given(_steps)
def test_no_path_leads_out(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """Whatever the path, what it means is inside."""
    top = tmp_path_factory.getbasetemp() / "endless"
    if not top.exists():
        (top / "in").mkdir(parents=True)
        (top / "out").symlink_to("../..")
        (top / "up").symlink_to("/in/../../in")
    if "self" not in steps:
        assert f"{Root(str(top)).real('/'.join(steps))}/".startswith(f"{top}/")


def test_walk(top: Path) -> None:
    """Every file is given once per name, directories behind links once, loops not at all."""
    (top / "in" / "again").symlink_to("/in")
    (top / "in" / "deep").mkdir()
    (top / "in" / "deep" / "x").write_text("")
    root = Root(str(top))
    assert list(root.files("/in")) == ["/in/file", "/in/deep/x"]
    assert list(root.files("/nowhere")) == []
    assert list(root.files("/in", depth=0)) == ["/in/file"]


def test_limits(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too deep, too many or unreadable is told, not passed over."""
    deep = top / "in" / "/".join("d" * 20)
    deep.mkdir(parents=True)
    root = Root(str(top))
    [error] = [each for each in root.files("/in") if isinstance(each, OSError)]
    assert "more than 12 directories deep" in str(error.strerror)
    for index in range(10):
        (top / "in" / f"{index}").write_text("")
    monkeypatch.setattr(room, "MAX_ENTRIES", 5)
    errors = [each for each in root.files("/in") if isinstance(each, OSError)]
    assert "more than 5 entries" in str(errors[0].strerror)


def test_what_is_read(top: Path) -> None:
    """Only regular files are read, only so much of them, and a pipe stops nobody."""
    root = Root(str(top))
    os.mkfifo(top / "pipe")
    for path in ("/pipe", "/in"):
        with pytest.raises((ShimError, OSError)):
            root.read(path)
    (top / "large").write_bytes(b"x" * (MAX_BYTES + 100))
    assert len(root.read("/large")) == MAX_BYTES + 1
