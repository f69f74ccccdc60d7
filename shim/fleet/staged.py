"""One file on its way: opened and locked, its draft written, the draft put in its place."""

import contextlib
import fcntl
import os
import stat
from typing import NamedTuple

from shim import files
from shim.errors import ShimError
from shim.fleet.runs import DRAFT

_LIMIT = 16 * 1024 * 1024


class Change(NamedTuple):
    """One file, its symbolic links resolved, and the checksums of its content before and after."""

    path: str
    before: str
    after: str


class Staged:
    """A change at work: ``number`` in its run, ``data`` as it was found, paths of the draft."""

    __slots__ = ("_target", "change", "data", "draft", "fd", "folder", "number", "old")

    def __init__(self, number: int, change: Change, run: str) -> None:
        """Open and lock the file. ShimError: somebody else has it; OSError: it cannot be read."""
        self.number = number
        self.change = change
        self.folder, name = os.path.split(change.path)
        short = os.fsdecode(os.fsencode(name)[:150])  # a name has 255 bytes at most
        self.draft = os.path.join(self.folder, f".{short}{DRAFT}{run}-{number}")
        self.fd = -1
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._target = os.open(change.path, flags)
        try:
            _lock(self._target)
            self.old = os.fstat(self._target)
            if not stat.S_ISREG(self.old.st_mode):
                raise ShimError("is no regular file any more")
            self.data = os.read(self._target, min(self.old.st_size, _LIMIT) + 1)
        except BaseException:
            os.close(self._target)
            raise

    def write(self, data: bytes) -> None:
        """Write the draft: ``data``, with all else as the file has it. OSError: nothing is left."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(self.draft, flags, 0o600)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self.fd, left) :]
            files.take_after(self._target, self.old, self.fd)
        except BaseException:
            self.discard()
            raise

    def rename(self) -> None:
        """Put the draft in the file's place. ShimError: it is another file by now; OSError."""
        now = os.stat(self.change.path, follow_symlinks=False)
        if _identity(now) != _identity(self.old):
            raise ShimError("somebody else has changed it meanwhile")
        os.rename(self.draft, self.change.path)

    def renamed(self) -> bool:
        """Tell whether the draft is in the file's place."""
        try:
            now = os.stat(self.change.path, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(now, os.fstat(self.fd))

    def discard(self) -> None:
        """Remove the draft."""
        with contextlib.suppress(OSError):
            os.unlink(self.draft)

    def close(self) -> None:
        """Let go of the file and the draft."""
        os.close(self._target)
        if self.fd >= 0:
            os.close(self.fd)


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ShimError("another process has locked it") from None
    except OSError:
        pass  # a file system without locks; the content is looked at all the same


def _identity(info: os.stat_result) -> tuple[int, ...]:
    """Tell a file and its content from any other, as far as its inode tells."""
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
