"""Who ``scan`` says would die, of many kinds of container at once, and who dies when probed.

All stand at the same time, are scanned once, and then get a uretprobe each, one after the other.
"""

import contextlib
import copy
import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

from vm.inside.cell import Cell, Outcome
from vm.inside.container import ROUNDS, End, Running, default_profile, probe_and_end, with_rule
from vm.inside.engines import Docker, Engine, Podman, Pods
from vm.inside.visits import Program, victim_args

VARIANTS = ("runtimes", "docker", "others")
REDUCED = ("none",)  # where nobody dies there is nothing to be told apart

_DEATHS = (signal.SIGSEGV, signal.SIGSYS)
_ANSWER = ["/victim", "answer", str(ROUNDS)]
# Denies itself uretprobe, then becomes the victim: PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP.
_OWN_FILTER = (
    "import ctypes, os, struct; libc = ctypes.CDLL(None); "
    "code = b''.join(struct.pack('<HBBI', *each) for each in ((32, 0, 0, 0), (21, 0, 1, 335), "
    "(6, 0, 0, 0x50001), (6, 0, 0, 0x7fff0000))); "
    "body = ctypes.create_string_buffer(code); "
    "head = struct.pack('<HxxxxxxQ', 4, ctypes.addressof(body)); "
    "assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, head) == 0; "
    f"os.execv('/victim', {_ANSWER!r})"
)


class Kind:
    """A container that waits: ``name`` says of which kind, ``end`` probes it."""

    def __init__(self, name: str, pid: int, end: Callable[[], End]) -> None:
        self.name = name
        self.pid = pid
        self.end = end


def run(cell: Cell, variant: str) -> Outcome:
    """Start them, scan, probe them, and compare."""
    with contextlib.ExitStack() as stack:
        kinds = list(
            {"runtimes": _runtimes, "docker": _docker, "others": _others}[variant](cell, stack)
        )
        command = ["env", "DOCKER_HOST=unix:///run/docker/sock"]
        done = cell.run([*command, *cell.shim("scan", "--json", site=True)])
        if done.returncode not in (0, 1, 3):
            raise RuntimeError(f"scan: {done.stdout}{done.stderr}")
        document = json.loads(done.stdout)
        told = {
            process["pid"]: (group, process["calls"]["uretprobe"])
            for group in document["groups"]
            for process in group["processes"]
        }
        outcome = Outcome("")
        words = []
        for kind in kinds:
            group, predicted = told.get(kind.pid, ({}, {"outcome": "none", "signal": ""}))
            end = kind.end()
            died = end.signal in _DEATHS
            outcome.expect(died or end.lived, f"{kind.name}: {end.told} {end.errors[-300:]}")
            outcome.expect(
                predicted["outcome"] == ("dies" if died else "safe"),
                f"{kind.name}: {predicted}, and it ended so: {end.told}",
            )
            name = signal.Signals(end.signal).name if end.signal else ""
            outcome.expect(
                predicted["signal"] == name, f"{kind.name}: {predicted}, and it died of {name}"
            )
            outcome.expect(
                group.get("kind") == "container", f"{kind.name}: no container, but {group}"
            )
            words.append(f"{kind.name} {name or 'lives'}")
        at_risk = document["processes_at_risk"]
        dead = sum("SIG" in each for each in words)
        outcome.expect(at_risk >= dead, f"{at_risk} at risk, {dead} have died")
        outcome.expect(done.returncode == bool(at_risk), f"exit status {done.returncode}")
        outcome.told = f"{len(kinds)} as told: {', '.join(words)}"
        return outcome


def _runtimes(cell: Cell, stack: contextlib.ExitStack) -> Iterator[Kind]:
    """Containers of runc and crun alone."""
    plain = default_profile()
    allowing: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW"}
    logging = copy.deepcopy(plain) | {"defaultAction": "SCMP_ACT_LOG"}
    logging.pop("defaultErrnoRet", None)
    killing = copy.deepcopy(plain) | {"defaultAction": "SCMP_ACT_KILL_PROCESS"}
    killing.pop("defaultErrnoRet", None)
    own = ["python3", "-c", _OWN_FILTER]
    for name, runtime, profile, hook, args in (
        ("runc", "runc", plain, False, _ANSWER),
        ("crun", "crun", plain, False, _ANSWER),
        ("runc hook", "runc", plain, True, _ANSWER),
        ("crun hook", "crun", plain, True, _ANSWER),
        ("no profile", "runc", None, False, _ANSWER),
        ("allowed by name", "runc", with_rule(plain, "SCMP_ACT_ALLOW"), False, _ANSWER),
        ("denied by name, hook", "runc", with_rule(plain, "SCMP_ACT_ERRNO", 13), True, _ANSWER),
        ("killed by name, hook", "crun", with_rule(plain, "SCMP_ACT_KILL"), True, _ANSWER),
        ("trapped by name", "runc", with_rule(plain, "SCMP_ACT_TRAP"), False, _ANSWER),
        ("kills by default", "crun", killing, False, _ANSWER),
        ("allows by default", "runc", allowing, False, _ANSWER),
        ("logs by default", "runc", logging, False, _ANSWER),
        ("own filter, hook", "runc", plain, True, own),
    ):
        container = stack.enter_context(Running(cell, runtime, profile, args, hook))
        container.wait_for("ready")
        yield Kind(name, container.pid(), lambda c=container: probe_and_end(c))  # type: ignore[misc]


def _docker(cell: Cell, stack: contextlib.ExitStack) -> Iterator[Kind]:
    """Containers of Docker."""
    docker = Docker(cell)
    cell.install("docker")
    for name, options in (
        ("docker", []),
        ("docker privileged", ["--privileged"]),
        ("docker unconfined", ["--security-opt", "seccomp=unconfined"]),
        ("docker by the wrapper", ["--runtime", "seccomp-shim"]),
    ):
        yield _visited(docker, stack, name, options)


def _others(cell: Cell, stack: contextlib.ExitStack) -> Iterator[Kind]:
    """Containers of Podman, root's and a user's, and of a pod."""
    for name, engine in (
        ("podman runc", Podman(cell, "runc")),
        ("rootless podman crun", Podman(cell, "crun", rootless=True)),
        ("pod", Pods(cell, "")),
    ):
        yield _visited(stack.enter_context(engine), stack, name, [])


def _visited(engine: Engine, stack: contextlib.ExitStack, name: str, options: list[str]) -> Kind:
    ident = f"scan-{name.replace(' ', '-')}"
    args = victim_args(ident)
    stack.callback(engine.remove, ident)
    program = stack.enter_context(Program(engine.cell, engine.starting(ident, options, args)))
    pid = program.victim(args)
    return Kind(name, pid, lambda: program.probed(pid))
