"""A file replaced whole or not at all."""

import os
import signal
from pathlib import Path

import pytest

from shim import files
from shim.errors import ShimError
from support import need


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a file with something in it."""
    file = tmp_path / "file"
    file.write_bytes(b"old")
    return file


def test_read_stops(path: Path) -> None:
    """One byte more than the limit is read, not all of an endless file."""
    assert files.read(str(path), 3) == b"old"
    assert files.read(str(path), 1) == b"ol"
    assert len(files.read("/dev/zero", 10)) == 11


def test_old_until_renamed(path: Path) -> None:
    """The file has its old content when the last word before the rename is spoken."""
    seen = []
    files.replace(str(path), b"new", b"old", lambda: seen.append(path.read_bytes()))
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_changed_meanwhile(path: Path) -> None:
    """What somebody else wrote since is not overwritten, not even if it only grew."""
    for content in (b"other", b"old and more", b""):
        path.write_bytes(content)
        with pytest.raises(ShimError, match="changed it meanwhile"):
            files.replace(str(path), b"new", b"old", pytest.fail)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_objection(path: Path) -> None:
    """Whatever stops the replacement leaves the file as it was and nothing beside it."""

    def object_to_it() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.replace(str(path), b"new", b"old", object_to_it)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_makers_draft_goes_with_a_start(path: Path) -> None:
    """What a start that was killed has left is removed by the next one, unless it may be alive."""

    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(2):
        child = os.fork()
        if child == 0:
            files.replace(str(path), b"new", b"old", killed, durable=False)
        os.waitpid(child, 0)
    young, old = sorted(each for each in path.parent.iterdir() if each != path)
    os.utime(old, (0, 0))
    others = [path.with_name(name) for name in (".file", ".other.1-0", "file.1-0")]
    for other in others:
        other.touch()
        os.utime(other, (0, 0))
    files.replace(str(path), b"new", b"old", lambda: None, durable=False)
    assert set(path.parent.iterdir()) == {path, young, *others}


def test_access_list_is_kept(path: Path) -> None:
    """An access control list goes over to the new file, as any attribute does."""
    # linux/posix_acl_xattr.h: version 2, then (tag, permissions, id) for the owner, user 1000, the
    # group, the mask and the others.
    entries = [(1, 6, -1), (2, 4, 1000), (4, 4, -1), (16, 4, -1), (32, 0, -1)]
    acl = b"\2\0\0\0" + b"".join(
        tag.to_bytes(2, "little")
        + rights.to_bytes(2, "little")
        + who.to_bytes(4, "little", signed=True)
        for tag, rights, who in entries
    )
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError as error:
        need.kernel(False, f"no access control lists here: {error}")
    mode = path.stat().st_mode
    files.replace(str(path), b"new", b"old", lambda: None)
    assert os.getxattr(path, "system.posix_acl_access") == acl
    assert path.stat().st_mode == mode


def test_no_room_for_a_draft() -> None:
    """Where no file can be made beside it, the error names the folder, not the draft."""
    # Nobody, root neither, can make a file in /proc.
    with pytest.raises(FileNotFoundError) as error:
        files.replace("/proc/version", b"new", b"old", pytest.fail)
    assert error.value.filename == "/proc"


def test_long_name(tmp_path: Path) -> None:
    """A file with the longest name there can be is replaced too."""
    path = tmp_path / ("n" * 255)
    path.write_bytes(b"old")
    files.replace(str(path), b"new", b"old", lambda: None)
    assert path.read_bytes() == b"new"
