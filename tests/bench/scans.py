"""A scan of a thousand filtered processes against reading their status; and of a single one."""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.report import machine
from shim.engines.demonstration import docker_default
from shim.host import libc
from shim.host.processes import status_of
from shim.profile.compile import program
from shim.risk.live_filters import read
from shim.risk.scan import calls, scan

_FIELDS = ("Name", "State", "Tgid", "TracerPid", "Uid", "Threads", "Seccomp", "Seccomp_filters")


def main(argv: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("tests/bench/run-scan", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="default: 10")
    parser.add_argument("--processes", type=int, default=1000, metavar="N", help="default: 1000")
    args = parser.parse_args(argv)
    host = machine([])
    print(f"{host['processors']} processors, {host['model']}, Linux {host['kernel']}")
    print(f"load average before: {' '.join(map(str, host['load']))}; {args.rounds} rounds")
    with _filtered(args.processes) as pids:
        sides: dict[str, Callable[[], object]] = {
            "reading and parsing /proc/PID/status": lambda: [status_of(p, _FIELDS) for p in pids],
            "reading their filters": lambda: list(read(pids)),
            "the whole scan of them": lambda: scan(calls(), pids=pids),
        }
        taken: dict[str, list[float]] = {name: [] for name in sides}
        stood: list[int] = []
        for round_ in range(args.rounds + 1):
            for name, work in sides.items():
                began = time.perf_counter()
                work()
                if round_:  # the first does not count
                    taken[name].append(time.perf_counter() - began)
        stood = [us for process in read(pids) for us in process.stopped]
        base = statistics.median(taken["reading and parsing /proc/PID/status"])
        print(f"\n{args.processes} processes{'':31}{'median ms':>10}{'ratio':>7}{'least ms':>10}")
        for name, times in taken.items():
            median = statistics.median(times)
            least = min(times) * 1e3
            print(f"  {name:<44}{median * 1e3:>10.1f}{median / base:>7.2f}{least:>10.1f}")
        print(
            f"\nA thread stood for {statistics.median(stood):.0f} us (median), "
            f"{statistics.quantiles(stood, n=20)[-1]:.0f} us (95 %)."
        )
        one = sorted(_alone(pids[0]) for _ in range(2 * args.rounds))
        print(
            f"seccomp-shim scan --pid N --json: {statistics.median(one) * 1e3:.0f} ms (median), "
            f"{one[0] * 1e3:.0f} ms at least."
        )
    print("Targets: ratio of the whole scan <= 5, a thread < 200 us, one process < 100 ms.")
    return 0


def _alone(pid: int) -> float:
    command = [sys.executable, "-P", "-m", "shim", "scan", "--pid", str(pid), "--json"]
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    return time.perf_counter() - began


@contextmanager
def _filtered(number: int) -> Iterator[list[int]]:
    """Have so many processes under Docker's default profile that wait."""
    code = program(docker_default())
    reader, writer = os.pipe()
    pids = []
    try:
        for _ in range(number):
            pid = os.fork()
            if pid == 0:
                try:
                    libc.set_filter(code)
                    os.write(writer, b"1")
                    signal.pause()
                finally:
                    os._exit(0)
            pids.append(pid)
        ready = 0
        while ready < number:
            ready += len(os.read(reader, 65536))
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
