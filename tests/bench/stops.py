"""What one stop of a traced thread costs, and what looking before sleeping saves of it."""

import os
import signal
import statistics
import time
from unittest import mock

from shim.host import ptrace
from shim.host.ptrace import Tracee

_NR_GETPPID = 110  # x86-64


def measure(rounds: int, calls: int = 2000) -> dict[str, float]:
    """Return microseconds a stop as the hook's tracer makes it, and when it sleeps at once.

    Every round times three loops of ``calls`` getppid(2) in a child: untraced, traced, and traced
    by a tracer that never looks before it sleeps. A call has two stops, its entry and its exit.
    """
    taken: dict[str, list[float]] = {"looking": [], "sleeping": []}
    for _ in range(rounds):
        plain = _loop(calls, traced=False)
        taken["looking"].append((_loop(calls, traced=True) - plain) / (2 * calls))
        with mock.patch.object(ptrace, "_SPINS", 0):
            taken["sleeping"].append((_loop(calls, traced=True) - plain) / (2 * calls))
    return {f"{name}_us": round(statistics.median(times) / 1e3, 2) for name, times in taken.items()}


def _loop(calls: int, *, traced: bool) -> float:
    """Return the nanoseconds that a child's loop takes by its own clock."""
    start, told = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.read(start[0], 1)
            began = time.perf_counter_ns()
            for _ in range(calls):
                os.getppid()
            os.write(told[1], str(time.perf_counter_ns() - began).encode())
            signal.pause()
        finally:
            os._exit(1)
    try:
        if traced:
            _follow(Tracee(child), start[1], calls)
        else:
            os.write(start[1], b"g")
        return float(os.read(told[0], 64))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for end in (*start, *told):
            os.close(end)


def _follow(traced: Tracee, start: int, calls: int) -> None:
    os.write(start, b"g")
    seen = 0
    while seen < calls:
        seen += traced.next_call((_NR_GETPPID,))[1] == _NR_GETPPID
    traced.result()
    traced.detach()
