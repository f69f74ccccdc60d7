"""What is kept of many hosts: a journal of every run over them.

A run's first line is about it: its ``kind`` (facts, plan, apply, rollback), ``hosts`` in
``batches``, ``by`` (the user), ``of`` (the run that it was made from), and what it was told. Then,
host by host, a line ``{"host", "begun"}`` when one begins and one with its ``result`` when it has
ended; a last line says how the run ended: ``done``, ``stopped`` and why, ``interrupted``. A run
without it was killed, or is at work.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from shim.errors import ShimError
from shim.host.untrusted_files import secure
from shim.log import timestamp
from shim.transaction import journal, store
from shim.transaction.lock import held

# What a host's ``result`` says where it has to be asked again.
WANTING = ("failed", "unreachable")


class FleetRun(NamedTuple):
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
        """Return the hosts, batch by batch."""
        batches: list[list[str]] = self.head["batches"]
        return batches

    @property
    def by(self) -> str:
        """Return whose run it is."""
        return str(self.head.get("by", ""))

    @property
    def hosts(self) -> list[str]:
        """Return all of them."""
        return [each for batch in self.batches for each in batch]


class RunJournal:
    """The journal of the run that is at work; ``lines`` are the hosts' results so far."""

    def __init__(self, ident: str, path: str, fd: int, run: FleetRun) -> None:
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
        journal.append(self._fd, self._path, [line])


class Store:
    """The directory with the journals."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._runs = os.path.join(path, "runs")

    def begin(self, kind: str, batches: Sequence[Sequence[str]], **head: Any) -> RunJournal:
        """Begin a run."""
        about = {"kind": kind, "by": store.whose(), **head, "batches": batches}
        ident, path, fd = journal.start(self._runs, about)
        return RunJournal(ident, path, fd, _read(path, _head(path)))

    def resume(self, run: FleetRun) -> RunJournal:
        """Go on with a run that did not come to its end."""
        path = self._path(run.id)
        return RunJournal(run.id, path, journal.reopen(path), run)

    def runs(self, *kinds: str) -> list[FleetRun]:
        """Return all runs of these kinds, the oldest first."""
        return [_read(*each) for each in self._heads(kinds)]

    def found(self, asked: str, *kinds: str) -> FleetRun:
        """Return the run that a user names, or the last one of his own. ShimError: there is none.

        Another's is gone on with only where it is named: it may be about other hosts.
        """
        every = self._heads(kinds)
        if asked:
            known = [each for each in every if journal.named(_ident(each[0]), asked)]
        else:
            known = [each for each in every if each[1].get("by", "") in ("", store.whose())]
            if every and not known:
                path, head = every[-1]
                raise ShimError(
                    f"the last fleet {head['kind']} is that of {head['by']}",
                    subject=_ident(path),
                    hint="name it by its id to use it",
                )
        if not known:
            what = " or ".join(kinds)
            raise ShimError(
                f"no such run of fleet {what}" if asked else f"there is no fleet {what} yet",
                subject=asked or self.path,
                hint="fleet report lists the runs",
            )
        return _read(*known[-1])

    def _heads(self, kinds: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
        """Return the journals of these kinds: path, and what the first line says."""
        if not os.path.isdir(self._runs):
            return []
        paths = [self._path(each) for each in journal.ids(self._runs)]
        heads = ((path, _head(path)) for path in paths)
        return [(path, head) for path, head in heads if head.get("kind", "") in kinds]

    def _path(self, ident: str) -> str:
        return os.path.join(self._runs, f"{ident}.jsonl")


def wants(lines: Mapping[str, Mapping[str, Any]], host: str) -> bool:
    """Tell whether a host has to be asked, or asked again, by the results so far."""
    return host not in lines or lines[host]["result"] in WANTING


def directory() -> str:
    """Return where the runs of this user over many hosts are kept."""
    return os.path.join(store.directory(), "fleet")


@contextlib.contextmanager
def opened(path: str) -> Iterator[Store]:
    """Yield the store to this process alone. ShimError: another is at work on its hosts."""
    secure(path, 0o700)
    secure(os.path.join(path, "runs"), 0o700)
    busy = ShimError(
        "another fleet run is at work", subject=path, hint="wait for it, or --state DIR"
    )
    with held(os.path.join(path, "lock"), busy):
        yield Store(path)


def _head(path: str) -> dict[str, Any]:
    """Return what a run says of itself before its hosts come; empty where a kill cut that short."""
    first = next(journal.documents(path), {})
    return first if "kind" in first else {}


def _ident(path: str) -> str:
    return os.path.basename(path).removesuffix(".jsonl")


def _read(path: str, head: dict[str, Any]) -> FleetRun:
    lines: dict[str, dict[str, Any]] = {}
    begun: set[str] = set()
    ended = why = ""
    for document in journal.documents(path):
        if "result" in document:
            lines[document["host"]] = document
            ended = why = ""
        elif "begun" in document:
            begun.add(document["host"])
            ended = why = ""
        elif "end" in document:
            ended, why = document["end"], document.get("why", "")
    kind, time = head.get("kind", ""), head.get("time", "")
    return FleetRun(_ident(path), kind, time, {"batches": [], **head}, lines, begun, ended, why)
