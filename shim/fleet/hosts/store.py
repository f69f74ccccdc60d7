"""What is kept of many hosts: a journal of every run over them.

A run's first line is about it: its ``kind`` (facts, plan, apply, rollback), ``hosts`` in
``batches``, ``of`` (the run that it was made from), and what it was told. Then, host by host, a
line ``{"host", "begun"}`` when one begins and one with its ``result`` when it has ended; a last
line says how the run ended: ``done``, ``stopped`` and why, ``interrupted``. A run without it was
killed, or is at work.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from shim.errors import ShimError
from shim.fleet import journals, state
from shim.fleet.lock import held
from shim.journal import timestamp

# What a host's ``result`` says where it has to be asked again.
WANTING = ("failed", "unreachable")


class Run(NamedTuple):
    """A run as its journal tells it: its first line, each host's last, and how it ended.

    ``begun`` are the hosts that have been at work, whether or not they ever answered.
    """

    id: str
    kind: str
    time: str
    head: dict[str, Any]
    lines: dict[str, dict[str, Any]]
    begun: set[str]
    ended: str
    why: str

    @property
    def batches(self) -> list[list[str]]:
        """Give the hosts, batch by batch."""
        batches: list[list[str]] = self.head["batches"]
        return batches


class Book:
    """The journal of the run that is at work; ``lines`` are the hosts' results so far."""

    def __init__(self, ident: str, path: str, fd: int, run: Run) -> None:
        self.id = ident
        self.run = run
        self.lines = dict(run.lines)
        self._path = path
        self._fd = fd

    def begun(self, host: str) -> None:
        """Note that a host is at work from now on."""
        self._append({"host": host, "begun": timestamp()})

    def settle(self, line: dict[str, Any]) -> dict[str, Any]:
        """Note what came of a host; gives the line as it was written."""
        line = {**line, "time": timestamp()}
        self._append(line)
        self.lines[line["host"]] = line
        return line

    def end(self, how: str, why: str = "") -> None:
        """Note that the run is over."""
        try:
            self._append({"end": how, "why": why, "time": timestamp()})
        finally:
            os.close(self._fd)

    def _append(self, line: dict[str, Any]) -> None:
        journals.append(self._fd, self._path, [line])


class Store:
    """The folder with the journals."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._runs = os.path.join(path, "runs")

    def begin(self, kind: str, batches: Sequence[Sequence[str]], **head: Any) -> Book:
        """Begin a run."""
        about = {"kind": kind, **head, "batches": batches}
        ident, path, fd = journals.start(self._runs, about)
        return Book(ident, path, fd, _read(path))

    def resume(self, run: Run) -> Book:
        """Go on with a run that did not come to its end."""
        path = self._path(run.id)
        return Book(run.id, path, journals.reopen(path), run)

    def runs(self, *kinds: str) -> list[Run]:
        """Give all runs of these kinds, the oldest first."""
        if not os.path.isdir(self._runs):
            return []
        paths = [self._path(each) for each in journals.ids(self._runs)]
        return [_read(path) for path in paths if _head(path).get("kind", "") in kinds]

    def found(self, asked: str, *kinds: str) -> Run:
        """Give the run that a user names, or the last one. ShimError: there is none."""
        known = self.runs(*kinds)
        if asked:
            known = [run for run in known if journals.named(run.id, asked)]
        if not known:
            what = " or ".join(kinds)
            raise ShimError(
                f"no such run of fleet {what}" if asked else f"there is no fleet {what} yet",
                subject=asked or self.path,
                hint="fleet report lists the runs",
            )
        return known[-1]

    def _path(self, ident: str) -> str:
        return os.path.join(self._runs, f"{ident}.jsonl")


def folder() -> str:
    """Give where the runs of this user over many hosts are kept."""
    return os.path.join(state.folder(), "fleet")


@contextlib.contextmanager
def opened(path: str) -> Iterator[Store]:
    """Give the store to this process alone. ShimError: another is at work on its hosts."""
    os.makedirs(os.path.join(path, "runs"), mode=0o700, exist_ok=True)
    busy = ShimError(
        "another fleet run is at work", subject=path, hint="wait for it, or --state DIR"
    )
    with held(os.path.join(path, "lock"), busy):
        yield Store(path)


def _head(path: str) -> dict[str, Any]:
    """Give what a run says of itself before its hosts come; empty where a kill cut that short."""
    first = next(journals.documents(path), {})
    return first if "kind" in first else {}


def _read(path: str) -> Run:
    head = _head(path)
    lines: dict[str, dict[str, Any]] = {}
    begun: set[str] = set()
    ended = why = ""
    for document in journals.documents(path):
        if "result" in document:
            lines[document["host"]] = document
            ended = why = ""
        elif "begun" in document:
            begun.add(document["host"])
            ended = why = ""
        elif "end" in document:
            ended, why = document["end"], document.get("why", "")
    ident = os.path.basename(path).removesuffix(".jsonl")
    kind, time = head.get("kind", ""), head.get("time", "")
    return Run(ident, kind, time, {"batches": [], **head}, lines, begun, ended, why)
