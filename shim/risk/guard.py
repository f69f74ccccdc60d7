"""Run a command that attaches probes, only if nobody whom they meet would die."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from shim.errors import ShimError
from shim.host import processes
from shim.risk.containers import Running
from shim.risk.outlook import SAFE, Call
from shim.risk.scan import Scan, Seen, scan
from shim.risk.targets import Targets

_PAUSE = 0.25
# A process is looked at when it is new and again when it may have loaded its filter: a container's
# begins as its runtime.
_LOOKS = (0.0, 1.0, 5.0)


def targets(pids: Sequence[int], container: Running | None, binary: str) -> Targets:
    """Return who is meant. ShimError: there is no such process or file."""
    for pid in pids:
        if not os.path.exists(f"/proc/{pid}"):
            raise ShimError("there is no such process", subject=str(pid))
    return Targets(pids, container.place if container else None, binary)


def look(meant: Targets, asked: Sequence[Call]) -> tuple[Scan, set[int]]:
    """Scan those who are meant now; also return all processes that were there before that."""
    there = set(processes.pids())
    return scan(asked, pids=meant.among(there), gone_is_error=False), there


def unsafe(found: Scan) -> list[Seen]:
    """Return whom a probe may kill on this kernel: not knowing counts as well."""
    names = [call.name for call in found.calls if found.decides(call.name)]
    return [
        one
        for group in found.groups
        for one in group.seen
        if any(one.outlooks[name].outcome != SAFE for name in names)
    ]


def become(command: Sequence[str]) -> NoReturn:
    """Run ``command`` in our place. ShimError: it cannot be started."""
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - the command is the caller's own
    except OSError as error:
        raise ShimError(error.strerror or "cannot be started", subject=command[0]) from None


def watched(
    command: Sequence[str],
    meant: Targets,
    asked: Sequence[Call],
    there: set[int],
    tell: Callable[[Seen], object],
) -> int:
    """Run ``command`` to its end and give its exit status; ``tell`` of new ones that may die.

    ``there`` are the processes that have been looked at. ShimError: it cannot be started.
    """
    watch = _Watch(meant, asked, there | {os.getpid()}, tell)
    try:
        child = subprocess.Popen(list(command))
    except OSError as error:
        raise ShimError(error.strerror or "cannot be started", subject=command[0]) from None
    watch.settled.add(child.pid)
    # An interrupt is meant for the command, which has got it too; other signals are handed on.
    handlers = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        handlers[number] = signal.signal(number, lambda sig, _: child.send_signal(sig))
    try:
        while True:
            try:
                child.wait(_PAUSE)
                break
            except subprocess.TimeoutExpired:
                watch.look()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


class _Watch:
    """Who is new, and was looked at how often; who is ``settled`` is looked at no more."""

    def __init__(
        self,
        meant: Targets,
        asked: Sequence[Call],
        settled: set[int],
        tell: Callable[[Seen], object],
    ) -> None:
        self.meant = meant
        self.asked = asked
        self.settled = settled
        self.tell = tell
        self.told: set[tuple[int, str]] = set()
        self.new: dict[int, tuple[float, int]] = {}  # since when, and how often looked at

    def look(self) -> None:
        """Look at those who are new, and tell of whom a probe may kill."""
        there, now = set(processes.pids()), time.monotonic()
        self.settled &= there  # a number that was free in between is somebody else's
        self.new = {pid: self.new.get(pid, (now, 0)) for pid in there - self.settled}
        due = [pid for pid, (since, looks) in self.new.items() if now >= since + _LOOKS[looks]]
        if not due:
            return
        meant = self.meant.among(due)
        for one in unsafe(scan(self.asked, pids=meant, named=False, gone_is_error=False)):
            key = (one.process.pid, one.process.started)
            if key not in self.told:
                self.told.add(key)
                self.tell(one)
        for pid in due:
            since, looks = self.new[pid]
            if looks + 1 == len(_LOOKS):
                self.settled.add(pid)
            else:
                self.new[pid] = (since, looks + 1)
