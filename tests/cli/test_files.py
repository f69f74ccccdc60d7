"""A file replaced whole or not at all."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shim import atomic, files
from shim.errors import ShimError
from support import need


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file with something in it."""
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
    atomic.replace(str(path), b"new", b"old", lambda: seen.append(path.read_bytes()))
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_changed_meanwhile(path: Path) -> None:
    """What somebody else wrote since is not overwritten, not even if it only grew."""
    for content in (b"other", b"old and more", b""):
        path.write_bytes(content)
        with pytest.raises(ShimError, match="changed it meanwhile"):
            atomic.replace(str(path), b"new", b"old", pytest.fail)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_objection(path: Path) -> None:
    """Whatever stops the replacement leaves the file as it was and nothing beside it."""

    def object_to_it() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic.replace(str(path), b"new", b"old", object_to_it)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_makers_draft_goes_with_a_start(path: Path) -> None:
    """What a start that was killed has left is removed by the next one, unless it may be alive."""

    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(2):
        child = os.fork()
        if child == 0:
            atomic.replace(str(path), b"new", b"old", killed, durable=False)
        os.waitpid(child, 0)
    young, old = sorted(each for each in path.parent.iterdir() if each != path)
    os.utime(old, (0, 0))
    others = [path.with_name(name) for name in (".file", ".other.1-0", "file.1-0")]
    for other in others:
        other.touch()
        os.utime(other, (0, 0))
    atomic.replace(str(path), b"new", b"old", lambda: None, durable=False)
    assert set(path.parent.iterdir()) == {path, young, *others}


def test_write_atomic(path: Path) -> None:
    """A file keeps mode and owner; a new one has its mode, or what the umask leaves of 0666."""
    need.root()
    os.chown(path, 1234, 4321)
    path.chmod(0o4751)
    umask = os.umask(0o027)
    try:
        atomic.write_atomic(str(path), b"new")
        atomic.write_atomic(str(path.with_name("made")), b"1")
        atomic.write_atomic(str(path.with_name("ours")), b"2", 0o644)
    finally:
        os.umask(umask)
    info = path.stat()
    assert path.read_bytes() == b"new"
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (1234, 4321, 0o4751)
    modes = {each.name: each.stat().st_mode & 0o7777 for each in path.parent.iterdir()}
    assert modes == {"file": 0o4751, "made": 0o640, "ours": 0o644}
    atomic.write_atomic("file", b"own", 0o600, dir_fd=(folder := os.open(path.parent, os.O_PATH)))
    os.close(folder)
    info = path.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (0, 0, 0o600)


def test_write_atomic_replaces_a_link(path: Path) -> None:
    """What a symbolic link leads to is not written to, whoever made the link."""
    link = path.with_name("link")
    for target in ("file", "nowhere"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        atomic.write_atomic(str(link), b"new")
        assert not link.is_symlink()
        assert link.read_bytes() == b"new"
    assert path.read_bytes() == b"old"
    assert not path.with_name("nowhere").exists()


def _write_atomic(path: str, data: bytes) -> None:
    atomic.write_atomic(path, data)


def _write_anew(path: str, data: bytes) -> None:
    atomic.write_atomic(path, data, 0o644)


def _replace(path: str, data: bytes) -> None:
    atomic.replace(path, data, b"old", lambda: None)


@pytest.mark.parametrize("write", [_write_atomic, _write_anew, _replace])
def test_a_full_disk(tmp_path: Path, write: Callable[[str, bytes], None]) -> None:
    """Where the disk is full a file stays as it is, and no draft is left beside it."""
    need.root()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], check=True)
    try:
        path = tmp_path / "file"
        path.write_bytes(b"old")
        for size in (60_000, 80_000):  # the second write fails, and the last flush of the first
            (tmp_path / "ballast").write_bytes(b"x" * 12_000)
            with pytest.raises(OSError, match="No space left"):
                write(str(path), b"n" * size)
            assert {each.name for each in tmp_path.iterdir()} == {"file", "ballast"}
            assert path.read_bytes() == b"old"
        write(str(path), b"new")
        assert path.read_bytes() == b"new"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_killed_writers_draft(path: Path) -> None:
    """What a writer that was killed has left is removed by the next one, unless it may be alive."""
    young, old = path.with_name(".file.1-0"), path.with_name(".file.2-0")
    for each in (young, old):
        each.touch()
    os.utime(old, (0, 0))
    atomic.write_atomic(str(path), b"new")
    assert set(path.parent.iterdir()) == {path, young}


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
    atomic.replace(str(path), b"new", b"old", lambda: None)
    assert os.getxattr(path, "system.posix_acl_access") == acl
    assert path.stat().st_mode == mode


def test_no_room_for_a_draft() -> None:
    """Where no file can be made beside it, the error names the directory, not the draft."""
    # Nobody, root neither, can make a file in /proc.
    with pytest.raises(FileNotFoundError) as error:
        atomic.replace("/proc/version", b"new", b"old", pytest.fail)
    assert error.value.filename == "/proc"


def test_long_name(tmp_path: Path) -> None:
    """A file with the longest name there can be is replaced too."""
    path = tmp_path / ("n" * 255)
    path.write_bytes(b"old")
    atomic.replace(str(path), b"new", b"old", lambda: None)
    assert path.read_bytes() == b"new"
