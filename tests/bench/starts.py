"""Whole container starts: ``RUNTIME run`` of /usr/bin/true without and with the hook."""

import dataclasses
import json
import os
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.timing import Case, Timed, interleaved
from shim.engines import oci
from shim.engines.demonstration import docker_default
from shim.engines.registration import hookfile
from shim.errors import ShimError
from shim.host import libc
from shim.profile.docker import DEFAULT_CAPABILITIES
from shim.start import hook_entry
from support.containers import TEST_SYSCALL, Lab

_NR_UNSHARE = 272  # x86-64
_CLONE_NEWNS = 0x20000
_FIGURES = ("stops", "duration_ms", "rewrite_ms")


def measure(lab: Lab, rounds: int, *, no_new_privileges: bool) -> dict[str, Any]:
    """Time the starts under ``lab.runtime``: rows as of ``Timed.row``, and what the tracer logged.

    The hook "no-op" does what this host's kernel calls for: nothing, but in state ``filtered``.
    """
    already = len(lab.log())
    kinds: dict[str, dict[str, Any]] = {
        "bare": {},
        "hook, no-op": registered(lab, 0),
        "hook, injection": registered(lab, TEST_SYSCALL),
    }
    cases = [
        _case(lab, name, hooks, number, no_new_privileges)
        for number, (name, hooks) in enumerate(kinds.items())
    ]
    timed = where_the_runtime_runs(lab.runtime, lambda: interleaved(cases, rounds, lab.folder))
    lines = [
        line
        for line in lab.log()[already:]
        if f"test-syscall-{TEST_SYSCALL}" in line.get("syscall", "")
    ]
    done = [line for line in lines if line["event"] == "adjusted" and line["verified"]]
    if len(done) != rounds + 1:
        raise ShimError(f"only {len(done)} of {rounds + 1} starts were adjusted", subject="bench")
    return {
        "runtime": os.path.basename(lab.runtime),
        "no_new_privileges": no_new_privileges,
        "rows": [one.row(timed[0]) for one in timed],
        "tracer": {name: statistics.median(line[name] for line in done) for name in _FIGURES},
    }


def registered(lab: Lab, test_syscall: int) -> dict[str, list[dict[str, Any]]]:
    """Return the hooks of a config.json that calls ours as an installation and the wrapper do."""
    options = ["--config", f"{lab.folder}/config.yaml"]
    if test_syscall:
        options += ["--test-syscall", str(test_syscall)]
    path = hookfile.render(lab.folder / "seccomp-shim-hook")
    return {"prestart": [hook_entry.hook(str(path), options)]}


def _case(lab: Lab, name: str, hooks: dict[str, Any], number: int, no_new_privileges: bool) -> Case:
    ident = f"shim-bench-{os.getpid()}-{number}"
    folder = lab.folder / f"{os.path.basename(lab.runtime)}-{no_new_privileges}-{number}"
    bundle(folder, hooks, no_new_privileges=no_new_privileges)
    command = [lab.runtime, "run", "--bundle", str(folder), ident]
    if os.path.basename(lab.runtime) == "crun":
        command.insert(1, "--cgroup-manager=disabled")
    return Case(name, command)


def bundle(folder: Path, hooks: dict[str, Any], *, no_new_privileges: bool) -> bytes:
    """Make the bundle of a container as Docker's daemon has them; give its config.json."""
    folder.mkdir()
    oci.bundle(
        folder,
        docker_default(),
        ["/usr/bin/true"],
        hooks=hooks,
        no_new_privileges=no_new_privileges,
    )
    path = folder / "config.json"
    config = json.loads(path.read_text())
    # As Docker's daemon has it: no ambient set.
    kinds = ("bounding", "effective", "permitted")
    config["process"]["capabilities"] = dict.fromkeys(kinds, sorted(DEFAULT_CAPABILITIES))
    path.write_text(json.dumps(config))
    return path.read_bytes()


def where_the_runtime_runs(runtime: str, work: Callable[[], list[Timed]]) -> list[Timed]:
    """Do ``work``, for crun beside cgroup v1 in a child whose mounts show it v2 alone.

    ``oci.command`` wraps every single run for that, which would be timed along with it.
    """
    plain = oci.command(runtime)
    if runtime in plain[:1]:
        return work()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            libc.syscall(_NR_UNSHARE, _CLONE_NEWNS)
            for arguments in (
                ["--make-rprivate", "/"],
                ["-t", "cgroup2", "none", "/sys/fs/cgroup"],
            ):
                subprocess.run(["mount", *arguments], check=True)
            found = [dataclasses.astuple(one) for one in work()]
            with open(writer, "w") as pipe:
                json.dump(found, pipe)
            code = 0
        except ShimError as error:
            print(error, flush=True)
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise ShimError("the measurement in a mount namespace of its own failed", subject=runtime)
    return [Timed(*fields) for fields in json.loads(text)]
