"""The journal of runs: one file a run, one JSON document a line.

The first line is about the run: its ``kind``, ``by`` whom, ``of`` which other one. Before files are
touched each has a line with its path, its checksums before and after, and the draft's path: these
lines are on the disk before the first draft is. After that each has a line with its ``state``:
``new``, or ``old`` and why. A run that came to its end has a last line that says so; what a killed
one left open is found out by the next, from the files themselves.
"""

import contextlib
import os
import stat
from collections.abc import Iterable
from typing import Any, NamedTuple

from shim.errors import ShimError
from shim.host.untrusted_files import reach
from shim.log import timestamp
from shim.transaction import journal
from shim.transaction.store import NOTHING, State, checksum, whose

DRAFT = ".seccomp-shim-"
_LIMIT = 16 * 1024 * 1024


class Entry(NamedTuple):
    """One file of a run.

    ``state`` is new, old, changed (by somebody else, as far as can be told), or empty: not known.
    """

    file: str
    before: str
    after: str
    draft: str
    state: str
    reason: str


class Run(NamedTuple):
    """A run as its journal tells it, entries by number; ``ended`` is empty if it was killed."""

    id: str
    time: str
    kind: str
    by: str
    of: str
    entries: dict[int, Entry]
    ended: str


class Journal:
    """The journal of the run that is at work."""

    def __init__(self, state: State, kind: str, of: str = "", files: int = 0) -> None:
        head = {"kind": kind, "by": whose(), "of": of, "files": files}
        self.id, self.path, self.fd = journal.start(state.runs, head)

    def intend(self, entries: Iterable[tuple[int, str, str, str, str]]) -> None:
        """Note what will be done: number, file, checksums before and after, path of the draft."""
        keys = ("n", "file", "before", "after", "draft")
        self._append(dict(zip(keys, entry, strict=True)) for entry in entries)

    def settle(self, results: Iterable[tuple[int, str, str]]) -> None:
        """Note what came of it: number, state, reason."""
        self._append({"n": n, "state": state, "reason": reason} for n, state, reason in results)

    def end(self, how: str) -> None:
        """Note that the run is over."""
        try:
            self._append([{"end": how, "time": timestamp()}])
        finally:
            os.close(self.fd)

    def _append(self, lines: Iterable[dict[str, Any]]) -> None:
        journal.append(self.fd, self.path, lines)


def listed(state: State) -> list[Run]:
    """Return all runs, the oldest first."""
    return [_read(_path(state, each)) for each in journal.ids(state.runs)]


def found(state: State, run_id: str) -> Run:
    """Return the run with this id, or the number it begins with. ShimError: there is none."""
    for run in listed(state):
        if journal.named(run.id, run_id):
            return run
    raise ShimError("no such run", subject=run_id, hint="rollback --list shows them")


def recover(state: State) -> list[Run]:
    """Settle what killed runs left open, take their drafts away; give those runs as they are now.

    Needs the lock: a run that is at work would look like a killed one.
    """
    recovered = []
    for run in listed(state):
        if run.ended and all(entry.state for entry in run.entries.values()):
            continue
        path = _path(state, run.id)
        results: list[dict[str, Any]] = []
        for number, entry in run.entries.items():
            _remove_draft(entry.draft)
            if not entry.state:
                seen, reason = looked_at(entry)
                reason = f"found so later: {reason}" if reason else "found so later"
                results.append({"n": number, "state": seen, "reason": reason})
        fd = journal.reopen(path)
        try:
            journal.append(fd, path, [*results, {"end": "killed", "time": timestamp()}])
        finally:
            os.close(fd)
        recovered.append(_read(path))
    return recovered


def looked_at(entry: Entry) -> tuple[str, str]:
    """Tell from the file itself whether it is old or new, or why that cannot be told."""
    try:
        with reach(entry.file, follow=False) as place:
            name = checksum(place.read(_LIMIT))
    except FileNotFoundError as error:
        if NOTHING not in (entry.before, entry.after):
            return "changed", error.strerror or str(error)
        name = NOTHING
    except OSError as error:
        return "changed", error.strerror or str(error)
    except ShimError as error:
        return "changed", error.message
    if name == entry.after:
        return "new", ""
    return ("old", "") if name == entry.before else ("changed", "its content is another")


def _path(state: State, run_id: str) -> str:
    return os.path.join(state.runs, f"{run_id}.jsonl")


def _remove_draft(path: str) -> None:
    """Remove a draft, where it is still one: the journal only tells of what was there."""
    if DRAFT not in os.path.basename(path):
        return
    with contextlib.suppress(OSError, ShimError), reach(path, follow=False) as place:
        place.refuse()
        if place.info and stat.S_ISREG(place.info.st_mode):
            with place.rights():
                os.unlink(place.name, dir_fd=place.directory)


def _read(path: str) -> Run:
    head: dict[str, Any] = {}
    entries: dict[int, Entry] = {}
    ended = ""
    for document in journal.documents(path):
        if "run" in document:
            head = document
        elif "file" in document:
            changed, before, after = (document[key] for key in ("file", "before", "after"))
            entry = Entry(changed, before, after, document["draft"], "", "")
            entries[document["n"]] = entry
        elif "state" in document:
            known = entries[document["n"]]
            state, reason = document["state"], document["reason"]
            entries[document["n"]] = known._replace(state=state, reason=reason)
        elif "end" in document:
            ended = document["end"]
    name = os.path.basename(path).removesuffix(".jsonl")
    time, kind, by, of = (head.get(key, "") for key in ("time", "kind", "by", "of"))
    return Run(name, time, kind, by, of, entries, ended)
