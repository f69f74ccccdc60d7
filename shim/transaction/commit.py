"""Many files replaced in groups: each whole, old or new, whatever happens.

A file system makes one transaction of many changes, and a disk one flush: so the drafts of a group
are all written first, made durable together, and only then renamed, one after the other. The
order is the point: the journal's intent, then backups and drafts, then the flush, the audit log,
the renames, the flush of the directories, the journal's result.
"""

import contextlib
import os
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from shim.errors import ShimError
from shim.host.libc import syncfs
from shim.host.untrusted_files import PathWalk
from shim.transaction.runs import Journal
from shim.transaction.staged import Change, Staged
from shim.transaction.store import State, checksum

__all__ = ["Change", "Result", "commit"]

_GROUP = 512
# As many files as this are flushed one by one: syncfs also writes what others have left dirty.
_FEW = 8


class Result(NamedTuple):
    """What became of a change: done, skipped (somebody else is or was at the file) or failed."""

    change: Change
    what: str
    reason: str


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
    """Return how many files can be open at once, four descriptors each; ask for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4 * _GROUP:
        wanted = 4 * _GROUP if hard == resource.RLIM_INFINITY else min(4 * _GROUP, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(_GROUP, soft // 4 - 8))


class _Group:
    """The changes that are flushed together: all that are open, and those whose draft is there."""

    def __init__(self, state: State, journal: Journal, contents: Mapping[str, bytes]) -> None:
        self.state = state
        self.journal = journal
        self.contents = contents
        self.way = PathWalk()
        self.staged: list[Staged] = []
        self.drafted: list[Staged] = []
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
        done: list[Staged] = []
        try:
            for one in self.staged:
                self._each(one.change, partial(self._write, one))
            self._flush()
            log([one.change for one in self.drafted])
            while self.drafted:
                one = self.drafted[0]
                reason = self._each(one.change, one.rename)
                if reason:
                    one.discard()
                    failed(one.change, reason)
                else:
                    done.append(one)
                del self.drafted[0]
        finally:
            # Also where the run ends here: what has become new is new, and is put on the disk.
            done += [one for one in self.drafted[:1] if one not in done and one.renamed()]
            for one in {os.path.dirname(one.change.path): one for one in done}.values():
                one.sync()
            self._settle({one.number for one in done})
        self.results += [Result(one.change, "done", "") for one in done]
        return self.results

    def close(self) -> None:
        """Let go of all files; drafts that were not renamed are removed."""
        for one in self.drafted:
            one.discard()
        for one in self.staged:
            one.close()
        self.way.close()

    def _each(self, change: Change, step: Callable[[], None]) -> str:
        """Take a step with one file; its failure is a result. Gives the reason, empty if none."""
        try:
            step()
            return ""
        except ShimError as error:
            what, reason = "skipped", error.message
        except OSError as error:
            what, reason = "failed", error.strerror or str(error)
        self.results.append(Result(change, what, reason))
        return reason

    def _open(self, number: int, change: Change) -> None:
        one = Staged(number, change, self.journal.id, self.way)
        try:
            if checksum(one.data) != change.before:
                raise ShimError("somebody else has changed it since the plan was made")
            self.state.keep(change.before, one.data)
        except BaseException:
            one.close()
            raise
        self.staged.append(one)

    def _write(self, one: Staged) -> None:
        one.write(self.contents[one.change.after])
        self.drafted.append(one)

    def _flush(self) -> None:
        """Make drafts and backups durable."""
        if len(self.drafted) <= _FEW:
            for one in self.drafted:
                if one.fd >= 0:
                    os.fsync(one.fd)
                self.state.sync(one.change.before)
            return
        systems = {os.fstat(one.fd).st_dev: one.fd for one in self.drafted if one.fd >= 0}
        with _folder(self.state.path) as fd:
            systems[os.fstat(fd).st_dev] = fd
            for each in systems.values():
                syncfs(each)

    def _settle(self, renamed: set[int]) -> None:
        """Write down what each file is now."""
        reasons = {each.change.path: each.reason for each in self.results}
        self.journal.settle(
            (one.number, "new", "")
            if one.number in renamed
            else (one.number, "old", reasons.get(one.change.path, "not come to"))
            for one in self.staged
        )


@contextlib.contextmanager
def _folder(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
