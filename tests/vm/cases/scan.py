"""Who ``scan`` says would die, of many kinds of container at once, and who dies when probed.

All stand at the same time, are scanned, and then get a uretprobe each, one after the other.
"""

import contextlib
import copy
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vm.inside.cell import Cell, Outcome
from vm.inside.container import ROUNDS, End, Running, default_profile, probe_and_end, with_rule
from vm.inside.engines import Docker, DockerCommandLine, Engine, Podman, Pods
from vm.inside.visits import Program, victim_args

VARIANTS = ("runtimes", "docker", "others")
REDUCED = ("none",)  # where nobody dies there is nothing to be told apart

_DEATHS = (signal.SIGSEGV, signal.SIGSYS)
# A process has half a second to stop. A machine that emulates two guests and does more than that
# may take longer: scan says so, and the next one may be in time.
_MORE_LOOKS = 2
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
    """A container that waits: ``name`` says of which kind, ``end`` probes it.

    ``lives`` is for those of which it is clear: a kind must be what its name says.
    """

    def __init__(
        self, name: str, pid: int, end: Callable[[], End], lives: bool | None = None
    ) -> None:
        self.name = name
        self.pid = pid
        self.end = end
        self.lives = lives


def run(cell: Cell, variant: str) -> Outcome:
    """Start them, scan, probe them, and compare."""
    with contextlib.ExitStack() as stack:
        kinds = list(
            {"runtimes": _runtimes, "docker": _docker, "others": _others}[variant](cell, stack)
        )
        code, document, told = _scanned(cell)
        for _ in range(_MORE_LOOKS):
            if not any(told[k.pid][1]["outcome"] == "unread" for k in kinds if k.pid in told):
                break
            code, document, told = _scanned(cell)
        outcome = Outcome("")
        for kind in kinds:
            group, predicted = told.get(kind.pid, ({}, {"outcome": "none", "signal": ""}))
            end = kind.end()
            died = end.signal in _DEATHS
            lived = end.lived and end.hits == ROUNDS
            outcome.expect(kind.lives in (None, lived), f"{kind.name}, but {end.told}")
            outcome.expect(died or lived, f"{kind.name}: {end.told} {end.errors[-300:]}")
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
            happened = name or ("lives" if lived else end.told)
            outcome.kinds.append(
                {"kind": kind.name, "said": predicted["outcome"], "happened": happened}
            )
        at_risk = document["processes_at_risk"]
        dead = sum(each["said"] == "dies" for each in outcome.kinds)
        outcome.expect(at_risk >= dead, f"{at_risk} at risk, {dead} of these")
        outcome.expect(code == bool(at_risk), f"exit status {code}")
        ends = (f"{each['kind']} {each['happened']}" for each in outcome.kinds)
        outcome.told = f"{len(kinds)} as told: {', '.join(ends)}"
        return outcome


def _scanned(
    cell: Cell,
) -> tuple[int, dict[str, Any], dict[int, tuple[dict[str, Any], dict[str, Any]]]]:
    """Return scan's exit status, its document, and by pid the group and what was told of it."""
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
    return done.returncode, document, told


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
    # By name: an earlier case may have made us the default, which a running daemon does not forget.
    yield _visited(docker, stack, "docker", ["--runtime", "runc"], lives=False)
    for name, engine, options in (
        ("docker privileged", docker, ["--privileged"]),
        ("docker unconfined", docker, ["--security-opt", "seccomp=unconfined"]),
        ("docker by the wrapper", docker, ["--runtime", "seccomp-shim"]),
        ("docker by our command line", DockerCommandLine(cell), []),
    ):
        yield _visited(engine, stack, name, options, lives=True)


def _others(cell: Cell, stack: contextlib.ExitStack) -> Iterator[Kind]:
    """Containers of Podman, root's and a user's, and of pods, without us and by each way in."""
    cell.uninstall("podman")
    root = stack.enter_context(Podman(cell, "runc"))
    user = stack.enter_context(Podman(cell, "crun", rootless=True))
    yield _visited(root, stack, "podman runc", lives=False)
    yield _visited(user, stack, "rootless podman crun", lives=False)
    cell.install("podman", "--way", "runtime")
    yield _visited(root, stack, "podman runc by the wrapper", lives=True)
    cell.install("podman", "--way", "hooks")
    yield _visited(root, stack, "podman runc by a hook", lives=True)
    pods = Pods(cell, "seccomp-shim")
    cell.install("containerd", "--config", f"{pods.inside}/config.toml")
    stack.enter_context(pods)
    plain = copy.copy(pods)
    plain.handler = ""
    yield _visited(plain, stack, "pod", lives=False)
    yield _visited(pods, stack, "pod by the wrapper", lives=True)


def _visited(
    engine: Engine,
    stack: contextlib.ExitStack,
    name: str,
    options: Sequence[str] = (),
    *,
    lives: bool,
) -> Kind:
    ident = f"scan-{name.replace(' ', '-')}"
    args = victim_args(ident)
    stack.callback(engine.remove, ident)
    program = stack.enter_context(Program(engine.cell, engine.starting(ident, options, args)))
    pid = program.victim(args)
    return Kind(name, pid, lambda: program.probed(pid), lives)
