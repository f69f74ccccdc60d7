"""Time processes against each other: every round runs each of them once, in turn."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shim.errors import ShimError

_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass(frozen=True)
class Case:
    """One command to time; ``stdin`` is a file, ``code`` the exit status that it must end with.

    ``prepare`` is called before each run and is not timed.
    """

    name: str
    command: list[str]
    stdin: str = os.devnull
    code: int = 0
    prepare: Callable[[], object] | None = None


@dataclass(frozen=True)
class Timed:
    """What one case took in milliseconds, round by round.

    ``times`` is by the clock, ``work`` the processor time of the process and of those it waited
    for: on a busy machine the steadier of the two.
    """

    name: str
    times: list[float]
    work: list[float]

    @property
    def median(self) -> float:
        """Return the median time."""
        return statistics.median(self.times)

    def row(self, base: "Timed") -> dict[str, object]:
        """Return what the report says of it; ``ratio`` is that of the medians to ``base``'s."""
        return {
            "name": self.name,
            "median_ms": round(self.median, 2),
            "least_ms": round(min(self.times), 2),
            "ratio": round(self.median / base.median, 2),
            "work_ms": round(min(self.work), 2),
            "work_ratio": round(min(self.work) / min(base.work), 2),
        }


def interleaved(cases: Sequence[Case], rounds: int, folder: Path) -> list[Timed]:
    """Run all of ``cases`` once in each of ``rounds`` rounds, after one that does not count."""
    timed = [Timed(case.name, [], []) for case in cases]
    for number in range(rounds + 1):
        for case, one in zip(cases, timed, strict=True):
            taken, work = once(case, folder)
            if number:
                one.times.append(taken)
                one.work.append(work)
    return timed


def once(case: Case, folder: Path) -> tuple[float, float]:
    """Run ``case``: milliseconds by the clock and of processor time; ShimError if it went wrong."""
    if case.prepare:
        case.prepare()
    output = folder / "output"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, case.stdin, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    started = time.perf_counter_ns()
    pid = os.posix_spawnp(case.command[0], case.command, _ENV, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    taken = time.perf_counter_ns() - started
    if (code := os.waitstatus_to_exitcode(status)) != case.code:
        said = " ".join(output.read_text(errors="replace").split())
        raise ShimError(f"ended with {code}: {said}", subject=case.name)
    return taken / 1e6, (usage.ru_utime + usage.ru_stime) * 1e3
