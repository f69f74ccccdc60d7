"""The journal of runs: one file a run, one JSON document a line.

The first line is about the run. Before files are touched each has a line with its path, its
checksums before and after, and the draft's path: these lines are on the disk before the first draft
is. After that each has a line with its ``state``: ``new``, or ``old`` and why. A run that came to
its end has a last line that says so; what a killed one left open is found out by the next, from the
files themselves.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from shim import __version__
from shim.errors import ShimError
from shim.fleet.state import State, checksum
from shim.journal import timestamp

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
    of: str
    entries: dict[int, Entry]
    ended: str


class Journal:
    """The journal of the run that is at work."""

    def __init__(self, state: State, kind: str, of: str = "", files: int = 0) -> None:
        now = timestamp()
        # Numbered, for clocks are set back.
        number = max((_number(name) for name in _names(state)), default=0) + 1
        self.id = f"{number:05}-{now[:19].replace('-', '').replace(':', '')}"
        self.path = os.path.join(state.runs, f"{self.id}.jsonl")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self.fd = os.open(self.path, flags, 0o600)
        head = {"run": self.id, "time": now, "kind": kind, "of": of, "files": files}
        try:
            self._append([{**head, "version": __version__}])
            sync_folder(state.runs)
        except BaseException:
            os.close(self.fd)
            raise

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
        _append(self.fd, self.path, lines)


def listed(state: State) -> list[Run]:
    """Give all runs, the oldest first."""
    names = sorted(_names(state), key=_number)
    return [_read(os.path.join(state.runs, name)) for name in names]


def found(state: State, run_id: str) -> Run:
    """Give the run with this id, or the number it begins with. ShimError: there is none."""
    for run in listed(state):
        if run_id == run.id or (run_id.isdecimal() and int(run_id) == _number(run.id)):
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
        path = os.path.join(state.runs, f"{run.id}.jsonl")
        results: list[dict[str, Any]] = []
        for number, entry in run.entries.items():
            _remove_draft(entry.draft)
            if not entry.state:
                seen, reason = looked_at(entry)
                reason = f"found so later: {reason}" if reason else "found so later"
                results.append({"n": number, "state": seen, "reason": reason})
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            # A line that was cut short must not swallow the next one.
            os.write(fd, b"\n")
            _append(fd, path, [*results, {"end": "killed", "time": timestamp()}])
        finally:
            os.close(fd)
        recovered.append(_read(path))
    return recovered


def looked_at(entry: Entry) -> tuple[str, str]:
    """Tell from the file itself whether it is old or new, or why that cannot be told."""
    try:
        with open(entry.file, "rb") as file:
            name = checksum(file.read(_LIMIT))
    except OSError as error:
        return "changed", error.strerror or str(error)
    if name == entry.after:
        return "new", ""
    return ("old", "") if name == entry.before else ("changed", "its content is another")


def sync_folder(path: str) -> None:
    """Put a folder's entries on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _names(state: State) -> list[str]:
    """Give the journals; what others have put into the folder is none."""
    return [each for each in os.listdir(state.runs) if re.fullmatch(r"\d+-\w+\.jsonl", each)]


def _number(name: str) -> int:
    return int(name.partition("-")[0])


def _append(fd: int, path: str, lines: Iterable[dict[str, Any]]) -> None:
    data = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    try:
        while data:
            data = data[os.write(fd, data) :]
        os.fdatasync(fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _remove_draft(path: str) -> None:
    """Remove a draft; the name is looked at again, for the journal is only a file."""
    if DRAFT in os.path.basename(path) and not os.path.islink(path):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)


def _read(path: str) -> Run:
    head: dict[str, Any] = {}
    entries: dict[int, Entry] = {}
    ended = ""
    with open(path, "rb") as file:
        for line in file:
            try:
                document = json.loads(line)
            except ValueError:
                continue  # cut short when the run was killed
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
    time, kind, of = (head.get(key, "") for key in ("time", "kind", "of"))
    return Run(name, time, kind, of, entries, ended)
