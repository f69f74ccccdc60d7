"""Processes that join a running container: ``RUNTIME exec`` alone and through the wrapper."""

import os
import statistics
from pathlib import Path
from typing import Any

from bench.starts import where_the_runtime_runs
from bench.timing import Case, interleaved
from bench.wrappers import IDLE
from shim.engines.demonstration import docker_default
from shim.errors import ShimError
from support.containers import TEST_SYSCALL
from support.joined import Joiner

FOLLOWED, AT_HAND = "wrapper, followed to its filter", "wrapper, program at hand"


def measure(folder: Path, runtime: str, rounds: int, *, no_new_privileges: bool) -> dict[str, Any]:
    """Time ``exec`` of /usr/bin/true: rows as of ``Timed.row``, and the tracer's stops for runc.

    For crun the wrapper makes the kept program longer in the round that does not count.
    """
    joiner = Joiner(folder, runtime)
    name = os.path.basename(runtime)
    options = ["--config", f"{joiner.wrapped.folder}/config.yaml", "--real-runtime", runtime]
    wrapper = [str(joiner.wrapped.wrapper), *options]
    last = FOLLOWED if name == "runc" else AT_HAND
    commands = {
        "bare": [runtime],
        IDLE: wrapper,
        last: [*wrapper, "--test-syscall", str(TEST_SYSCALL)],
    }
    more = ["--cgroup-manager=disabled"] if name == "crun" else []
    with joiner.joinable(
        seccomp=docker_default(), no_new_privileges=no_new_privileges
    ) as container:
        words = [*more, "exec", container.name, "/usr/bin/true"]
        cases = [Case(row, [*command, *words]) for row, command in commands.items()]
        timed = where_the_runtime_runs(runtime, lambda: interleaved(cases, rounds, folder))
    done = joiner.wrapped.events("adjusted")
    if len(done) != (rounds + 1 if name == "runc" else 1):
        raise ShimError(f"{len(done)} of {rounds + 1} execs were adjusted", subject=name)
    stops = [line["stops"] for line in done if "stops" in line]
    return {
        "runtime": name,
        "no_new_privileges": no_new_privileges,
        "rows": [one.row(timed[0]) for one in timed],
        "stops": statistics.median(stops) if stops else 0,
    }
