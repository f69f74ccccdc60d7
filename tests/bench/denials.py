"""What a watch for refused calls costs programs that are refused nothing."""

import os
import time
from contextlib import ExitStack
from typing import Any

from bench.timing import Timed
from shim.errors import ShimError
from shim.host import libc
from shim.profile import compile as compiler
from shim.profile import docker
from shim.risk.denials import Denials
from support.filters import shipped

# Under Docker's filter: calls that do next to nothing; then what programs do that make many.
WORKS = {
    "dd, a million reads and writes of one byte": "dd if=/dev/zero of=/dev/null bs=1 count=500k",
    "find, a look at each file of /usr": "find /usr -newer /proc/1/cmdline",
    "grep, through all files of /usr/share/doc": "! grep -rq 'no such line' /usr/share/doc",
    "tar, all of /usr/share/doc": "tar -cf - /usr/share/doc | cat >/dev/null",
}


def measure(rounds: int) -> list[list[dict[str, Any]]]:
    """Return for each work two rows, not watched and watched, run in turns in each round."""
    seccomp = docker.resolve(
        shipped(),
        capabilities=docker.DEFAULT_CAPABILITIES,
        machine=os.uname().machine,
        kernel=(5, 0),
    )
    program = compiler.program(seccomp)
    tables = []
    for name, script in WORKS.items():
        plain, watched = Timed(name, [], [], []), Timed("watched", [], [], [])
        for number in range(rounds + 1):
            for one in (plain, watched):
                with ExitStack() as stack:
                    if one is watched:
                        stack.enter_context(Denials(lambda _: None))
                    taken, work = _run(script, program)
                if number:
                    one.times.append(taken)
                    one.work.append(work)
        tables.append([plain.row(plain), watched.row(plain)])
    return tables


def _run(script: str, program: bytes) -> tuple[float, float]:
    """Run a script under a filter: milliseconds by the clock, and of processor time."""
    began = time.perf_counter_ns()
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            libc.set_filter(program)
            os.execv("/bin/sh", ["sh", "-c", script])  # noqa: S606 - the filter is to stay
        finally:
            os._exit(127)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise ShimError(f"ended with {os.waitstatus_to_exitcode(status)}", subject=script)
    return (time.perf_counter_ns() - began) / 1e6, (usage.ru_utime + usage.ru_stime) * 1e3
