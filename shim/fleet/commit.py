"""Many files replaced in groups: each whole, old or new, whatever happens.

A file system makes one transaction of many changes, and a disk one flush: so the drafts of a group
are all written first, made durable together, and only then renamed, one after the other. The
order is the point: the journal's intent, then backups and drafts, then the flush, the audit log,
the renames, the flush of the folders, the journal's result.
"""

import contextlib
import fcntl
import os
import resource
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from shim import files
from shim.errors import ShimError
from shim.fleet.runs import DRAFT, Journal, sync_folder
from shim.fleet.state import State, checksum
from shim.host.libc import syncfs

_GROUP = 512
# As many files as this are flushed one by one: syncfs also writes what others have left dirty.
_FEW = 8
_LIMIT = 16 * 1024 * 1024


class Change(NamedTuple):
    """One file, its symbolic links resolved, and the checksums of its content before and after."""

    path: str
    before: str
    after: str


class Result(NamedTuple):
    """What became of a change: done, skipped (somebody else is or was at the file) or failed."""

    change: Change
    what: str
    reason: str


class _Staged:
    """A change whose draft is written; ``target`` is the old file, open and locked."""

    __slots__ = ("change", "draft", "fd", "folder", "number", "old", "target")

    def __init__(self, number: int, change: Change, target: int, old: os.stat_result) -> None:
        self.number = number
        self.change = change
        self.target = target
        self.old = old
        self.draft = ""
        self.folder = ""
        self.fd = -1


# Told of the changes of a group just before their renames; and of one that then failed after all.
Log = Callable[[Sequence[Change]], None]
Failed = Callable[[Change, str], None]


def commit(
    changes: Sequence[Change],
    contents: Mapping[str, bytes],
    state: State,
    journal: Journal,
    log: Log,
    failed: Failed,
    progress: Callable[[int], None],
) -> list[Result]:
    """Make all changes, ``contents`` by checksum; ShimError or OSError: the run cannot go on.

    A single file's failure is its result and stops no other. ``progress`` is told how many files
    are through.
    """
    results: list[Result] = []
    size = _group_size()
    for start in range(0, len(changes), size):
        group = _Group(state, journal, contents)
        try:
            results += group.run(start, changes[start : start + size], log, failed)
        finally:
            group.close()
        progress(len(results))
    return results


def _group_size() -> int:
    """Give how many files can be open at once, four descriptors each; ask for more if there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4 * _GROUP:
        wanted = 4 * _GROUP if hard == resource.RLIM_INFINITY else min(4 * _GROUP, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(_GROUP, soft // 4 - 8))


class _Group:
    """The changes that are flushed together."""

    def __init__(self, state: State, journal: Journal, contents: Mapping[str, bytes]) -> None:
        self.state = state
        self.journal = journal
        self.contents = contents
        self.staged: list[_Staged] = []
        self.drafted: list[_Staged] = []
        self.results: list[Result] = []

    def run(self, start: int, changes: Sequence[Change], log: Log, failed: Failed) -> list[Result]:
        for number, change in enumerate(changes, start):
            self._each(change, partial(self._open, number, change))
        if not self.staged:
            return self.results
        self.journal.intend(
            (one.number, one.change.path, one.change.before, one.change.after, one.draft)
            for one in self.staged
        )
        done: list[_Staged] = []
        try:
            for one in self.staged:
                self._each(one.change, partial(self._write, one))
            self._flush()
            log([one.change for one in self.drafted])
            while self.drafted:
                one = self.drafted[0]
                reason = self._rename(one)
                del self.drafted[0]
                if reason:
                    failed(one.change, reason)
                else:
                    done.append(one)
        finally:
            # Also where the run ends here: what has become new is new, and is put on the disk.
            for folder in {one.folder for one in done}:
                sync_folder(folder)
            renamed = {one.number for one in done}
            reasons = {each.change.path: each.reason for each in self.results}
            self.journal.settle(
                (one.number, "new", "")
                if one.number in renamed
                else (one.number, "old", reasons.get(one.change.path, "not come to"))
                for one in self.staged
            )
        self.results += [Result(one.change, "done", "") for one in done]
        return self.results

    def close(self) -> None:
        """Let go of all files; drafts that were not renamed are removed."""
        for one in self.staged:
            os.close(one.target)
            if one.fd >= 0:
                os.close(one.fd)
        for one in self.drafted:
            with contextlib.suppress(OSError):
                os.unlink(one.draft)

    def _each(self, change: Change, step: Callable[[], None]) -> None:
        try:
            step()
        except ShimError as error:
            self.results.append(Result(change, "skipped", error.message))
        except OSError as error:
            self.results.append(Result(change, "failed", error.strerror or str(error)))

    def _open(self, number: int, change: Change) -> None:
        """Lock the file and see that it is what the plan was made for."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(change.path, flags)
        try:
            _lock(fd)
            old = os.fstat(fd)
            if not stat.S_ISREG(old.st_mode):
                raise ShimError("is no regular file any more")
            data = os.read(fd, min(old.st_size, _LIMIT) + 1)
            if checksum(data) != change.before:
                raise ShimError("somebody else has changed it since the plan was made")
            self.state.keep(change.before, data)
        except BaseException:
            os.close(fd)
            raise
        one = _Staged(number, change, fd, old)
        one.folder, name = os.path.split(change.path)
        short = os.fsdecode(os.fsencode(name)[:150])  # a name has 255 bytes at most
        one.draft = os.path.join(one.folder, f".{short}{DRAFT}{self.journal.id}-{number}")
        self.staged.append(one)

    def _write(self, one: _Staged) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        one.fd = os.open(one.draft, flags, 0o600)
        try:
            data = memoryview(self.contents[one.change.after])
            while data:
                data = data[os.write(one.fd, data) :]
            files.take_after(one.target, one.old, one.fd)
        except BaseException:
            os.unlink(one.draft)
            raise
        self.drafted.append(one)

    def _flush(self) -> None:
        """Make drafts and backups durable."""
        if len(self.drafted) <= _FEW:
            for one in self.drafted:
                os.fsync(one.fd)
                sync_backup(self.state, one.change.before)
            return
        systems = {os.fstat(one.fd).st_dev: one.fd for one in self.drafted}
        with _folder(self.state.path) as fd:
            systems[os.fstat(fd).st_dev] = fd
            for each in systems.values():
                syncfs(each)

    def _rename(self, one: _Staged) -> str:
        """Put the draft in the file's place; gives why not, where it could not be done."""
        try:
            now = os.stat(one.change.path, follow_symlinks=False)
            if _identity(now) != _identity(one.old):
                raise OSError(0, "somebody else has changed it meanwhile")
            os.rename(one.draft, one.change.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(one.draft)
            reason = error.strerror or str(error)
            what = "failed" if error.errno else "skipped"
            self.results.append(Result(one.change, what, reason))
            return reason
        return ""


def sync_backup(state: State, name: str) -> None:
    """Put one backup on the disk, and the way to it."""
    path = state.backup(name)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    sync_folder(os.path.dirname(path))
    sync_folder(state.backups)


@contextlib.contextmanager
def _folder(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


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
