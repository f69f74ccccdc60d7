"""The runtime wrapper in front of the runtime: a verb that passes, and whole starts."""

import os
from pathlib import Path
from typing import Any

from bench.starts import bundle, registered, where_the_runtime_runs
from bench.timing import Case, interleaved
from shim.errors import ShimError
from support import engines, image
from support.containers import TEST_SYSCALL
from support.wrapped import WrappedLab

HOOK, INJECTED, PROGRAM = "hook, injection", "wrapper, injection", "wrapper, raw program"
IDLE = "wrapper, nothing to do"
_NOBODY = "shim-bench-nobody"


def measure(folder: Path, runtime: str, rounds: int) -> dict[str, Any]:
    """Time ``state`` of no container, and ``run``; the runtime alone is the base of both.

    Where this kernel is in state ``filtered``, there is something to do in every row.
    """
    lab = WrappedLab(folder, runtime, test_syscall=0)
    name = os.path.basename(runtime)
    root = ["--root", str(folder / "root")]
    wrapper = [str(lab.wrapper), "--config", f"{folder}/config.yaml", "--real-runtime", runtime]
    verbs = [
        Case(f"{name} state", [runtime, *root, "state", _NOBODY], code=1),
        Case("through the wrapper", [*wrapper, *root, "state", _NOBODY], code=1),
    ]
    test_syscall = [*wrapper, "--test-syscall", str(TEST_SYSCALL)]
    kinds: list[tuple[str, list[str], dict[str, Any]]] = [
        ("bare", [runtime], {}),
        (HOOK, [runtime], registered(lab, TEST_SYSCALL)),
        (IDLE, wrapper, {}),
        (INJECTED if name == "runc" else PROGRAM, test_syscall, {}),
    ]
    starts = [
        _start(lab, row, command, hooks, number)
        for number, (row, command, hooks) in enumerate(kinds)
    ]
    already = len(lab.events("adjusted"))
    state = interleaved(verbs, rounds, folder)
    run = where_the_runtime_runs(runtime, lambda: interleaved(starts, rounds, folder))
    adjusted = lab.events("adjusted")[already:]
    if len(adjusted) != 2 * (rounds + 1):
        raise ShimError(f"only {len(adjusted)} of {2 * (rounds + 1)} starts were adjusted")
    return {
        "runtime": name,
        "state": [one.row(state[0]) for one in state],
        "run": [one.row(run[0]) for one in run],
    }


def measure_docker(folder: Path, rounds: int) -> list[dict[str, object]]:
    """Time ``docker run`` by runc and by the wrapper, with nothing to do and with an injection."""
    lab = WrappedLab(folder, "/usr/sbin/runc", test_syscall=0)
    options = ["--config", f"{folder}/config.yaml"]
    runtimes = {
        "idle": {"path": str(lab.wrapper), "runtimeArgs": options},
        "test_syscall": {
            "path": str(lab.wrapper),
            "runtimeArgs": [*options, "--test-syscall", str(TEST_SYSCALL)],
        },
    }
    with engines.dockerd({"runtimes": runtimes}) as docker:
        variables = [f"DOCKER_HOST=unix://{docker.socket}", f"DOCKER_CONFIG={folder}/client"]
        client = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *variables, engines.DOCKER]
        words = [image.NAME, "true"]
        cases = [
            Case(name, [*client, "run", "--rm", "--network", "none", "--runtime", each, *words])
            for name, each in (("runc", "runc"), (IDLE, "idle"), (INJECTED, "test_syscall"))
        ]
        timed = interleaved(cases, rounds, folder)
    return [one.row(timed[0]) for one in timed]


def _start(
    lab: WrappedLab, name: str, command: list[str], hooks: dict[str, Any], number: int
) -> Case:
    folder = lab.folder / f"wrapped-{number}"
    config = bundle(folder, hooks, no_new_privileges=True)
    path = folder / "config.json"
    more = ["--cgroup-manager=disabled"] if os.path.basename(lab.real) == "crun" else []
    words = ["run", "--bundle", str(folder), f"shim-bench-{os.getpid()}-wrapped-{number}"]
    # The wrapper changes it: every start begins with the engine's own.
    return Case(name, [*command, *more, *words], prepare=lambda: path.write_bytes(config))
