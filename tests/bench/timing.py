"""Time processes against each other: every round runs each of them once, in turn."""

import contextlib
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shim.errors import ShimError
from shim.host import libc

_PR_SET_CHILD_SUBREAPER = 36
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
    for: on a busy machine the steadier of the two. ``whole`` has those besides that outlived it, as
    a tracer does, and with which it shares the processors.
    """

    name: str
    times: list[float]
    work: list[float]
    whole: list[float]

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
    timed = [Timed(case.name, [], [], []) for case in cases]
    for number in range(rounds + 1):
        for case, one in zip(cases, timed, strict=True):
            taken, work, whole = once(case, folder)
            if number:
                one.times.append(taken)
                one.work.append(work)
                one.whole.append(whole)
    return timed


def once(case: Case, folder: Path) -> tuple[float, float, float]:
    """Run ``case`` and return the milliseconds as of ``Timed``; ShimError if it went wrong."""
    if case.prepare:
        case.prepare()
    output = folder / "output"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, case.stdin, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # in whom those end up that outlive the command
        try:
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
            os.write(writer, json.dumps(_run(case.command, actions)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    code, *figures = json.loads(answer)
    if code != case.code:
        said = " ".join(output.read_text(errors="replace").split())
        raise ShimError(f"ended with {code}: {said}", subject=case.name)
    taken, work, whole = figures
    return taken, work, whole


def _run(command: list[str], actions: list[tuple[Any, ...]]) -> tuple[int, float, float, float]:
    """Run a command and wait for all that it leaves behind: its status, and ``once``'s figures."""
    started = time.perf_counter_ns()
    pid = os.posix_spawnp(command[0], command, _ENV, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    taken = time.perf_counter_ns() - started
    work = whole = _milliseconds(usage)
    with contextlib.suppress(ChildProcessError):
        while True:
            whole += _milliseconds(os.wait3(0)[2])
    return os.waitstatus_to_exitcode(status), taken / 1e6, work, whole


def _milliseconds(usage: resource.struct_rusage) -> float:
    return (usage.ru_utime + usage.ru_stime) * 1e3
