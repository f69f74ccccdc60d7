"""One file on its way: opened and locked, its draft written, the draft put in its place."""

import contextlib
import fcntl
import os
from typing import NamedTuple

from shim import atomic
from shim.errors import ShimError
from shim.host.untrusted_files import PathWalk
from shim.transaction.runs import DRAFT
from shim.transaction.store import NOTHING

_LIMIT = 16 * 1024 * 1024


class Change(NamedTuple):
    """One file, its symbolic links resolved, and the checksums of its content before and after."""

    path: str
    before: str
    after: str


class Staged:
    """A change at work: ``number`` in its run, ``data`` as it was found, path of the draft.

    All is done in the one directory that was opened, with the rights that hold there.
    """

    __slots__ = ("_draft", "_place", "_target", "change", "data", "draft", "fd", "number", "old")

    def __init__(self, number: int, change: Change, run: str, way: PathWalk) -> None:
        """Open and lock the file. ShimError: somebody else has it; OSError: it cannot be read."""
        self.number = number
        self.change = change
        directory, name = os.path.split(change.path)
        short = os.fsdecode(os.fsencode(name)[:150])  # a name has 255 bytes at most
        self._draft = f".{short}{DRAFT}{run}-{number}"
        self.draft = os.path.join(directory, self._draft)
        self.fd = self._target = -1
        self._place = way.reach(change.path, follow=False)
        self.old: os.stat_result | None = None
        self.data = b""
        try:
            self._place.refuse()
            if change.before == NOTHING:
                if self._place.info is not None:
                    raise ShimError("somebody else has made it since the plan was made")
                return
            self._target = self._place.open()
            _lock(self._target)
            self.old = os.fstat(self._target)
            self.data = os.read(self._target, min(self.old.st_size, _LIMIT) + 1)
        except BaseException:
            self.close()
            raise

    def write(self, data: bytes) -> None:
        """Write the draft: ``data``, with all else as the file has it. OSError: nothing is left.

        A file that is to be removed has no draft, and a new one is everybody's to read.
        """
        if self.change.after == NOTHING:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._place.rights():
            self.fd = os.open(self._draft, flags, 0o600, dir_fd=self._place.directory)
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(self.fd, left) :]
                if self.old is None:
                    os.fchmod(self.fd, 0o644)
                else:
                    atomic.take_after(self._target, self.old, self.fd)
            except BaseException:
                self.discard()
                raise

    def rename(self) -> None:
        """Put the draft in the file's place. ShimError: it is another file by now; OSError."""
        place = self._place
        ends = {"src_dir_fd": place.directory, "dst_dir_fd": place.directory}
        if self.old is None:  # a link, unlike a rename, replaces nothing
            with place.rights():
                os.link(self._draft, place.name, **ends, follow_symlinks=False)
                os.unlink(self._draft, dir_fd=place.directory)
            return
        now = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
        if atomic.identity(now) != atomic.identity(self.old):
            raise ShimError("somebody else has changed it meanwhile")
        with place.rights():
            if self.change.after == NOTHING:
                os.unlink(place.name, dir_fd=place.directory)
            else:
                os.rename(self._draft, place.name, **ends)

    def renamed(self) -> bool:
        """Tell whether the draft is in the file's place, or a file to be removed is gone."""
        try:
            place = self._place
            now = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
        except FileNotFoundError:
            return self.change.after == NOTHING
        except OSError:
            return False
        return self.fd >= 0 and os.path.samestat(now, os.fstat(self.fd))

    def discard(self) -> None:
        """Remove the draft."""
        with contextlib.suppress(OSError), self._place.rights():
            os.unlink(self._draft, dir_fd=self._place.directory)

    def sync(self) -> None:
        """Put the directory's entries on the disk."""
        with self._place.rights():
            self._place.sync()

    def close(self) -> None:
        """Let go of the file, the draft and their directory."""
        self._place.close()
        for fd in (self._target, self.fd):
            if fd >= 0:
                os.close(fd)


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ShimError("another process has locked it") from None
    except OSError:
        pass  # a file system without locks; the content is looked at all the same
