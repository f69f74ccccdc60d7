"""A container of the matrix: a bundle, a runtime, the victim in it, a uretprobe on the victim."""

import copy
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shim.risk.uprobe import Uretprobe, function_offset
from vm.inside.cell import SECONDS, TREE, Cell, Outcome

RUNTIMES = ("runc", "crun")
BUNDLES = "/run/bundles"
TREE_OUTSIDE = "/run/tree"  # the tree under test, in the guest's own root
DOCKERS = f"{TREE_OUTSIDE}/profiles/docker"
ROUNDS = 25  # calls of the probed function
RIGHT = 42  # the victim's exit status when every answer was right


@dataclass(frozen=True)
class End:
    """How a container ended: exit status or signal, what it printed, and the hits counted in it."""

    code: int
    output: str
    errors: str
    hits: int | None = None

    @property
    def signal(self) -> int:
        """Return the signal that ended the process, 0 if none did."""
        number = self.code - 128
        return number if number in set(map(int, signal.Signals)) else 0

    @property
    def lived(self) -> bool:
        """Tell whether the process ended by itself, all its answers right."""
        return self.code == RIGHT and self.output == "right\n"

    @property
    def told(self) -> str:
        """Return the end in a word or two."""
        if self.signal:
            return signal.Signals(self.signal).name
        if self.lived:
            return "lives" if self.hits is None else f"lives, {self.hits} hits"
        return f"exit {self.code}"


def default_profile() -> dict[str, Any]:
    """Return Docker's built-in profile as its daemon hands it to a runtime."""
    return _handed_on(json.loads(Path(DOCKERS, "default.json").read_text()))


def profile_of(release: str) -> dict[str, Any]:
    """Return the built-in profile of another release of Docker, as its daemon hands it on."""
    from shim.profile.docker_releases import builtin

    base, versions = (Path(DOCKERS, f"{name}.json").read_text() for name in ("default", "versions"))
    tree, reason = builtin(release, base, versions)
    assert tree is not None, reason
    return _handed_on(tree)


def _handed_on(tree: dict[str, Any]) -> dict[str, Any]:
    from shim.profile import docker

    release = os.uname().release.split(".")
    flat = docker.resolve(
        tree,
        capabilities=docker.DEFAULT_CAPABILITIES,
        machine="x86_64",
        kernel=(int(release[0]), int(release[1])),
    )
    assert flat is not None
    return flat


def with_rule(profile: dict[str, Any], action: str, errno: int = 0) -> dict[str, Any]:
    """Return ``profile`` with a rule for uretprobe."""
    changed = copy.deepcopy(profile)
    rule: dict[str, Any] = {"names": ["uretprobe"], "action": action}
    changed["syscalls"].append(rule | ({"errnoRet": errno} if errno else {}))
    return changed


def probed(
    cell: Cell,
    runtime: str,
    profile: dict[str, Any],
    *,
    hook: bool = False,
    limits: dict[str, int] | None = None,
    attach: "Callable[[Cell, int, Path], Any] | None" = None,
) -> End:
    """Run the victim, put a uretprobe on it while it waits, let it go, and tell how it ended.

    ``limits`` are what its settings ask for. ``attach`` gets the cell, the process and the victim's
    path; what it gives has hits() and close(). By default it is the tests' own probe.
    """
    command = ["/victim", "answer", str(ROUNDS)]
    with Running(cell, runtime, profile, command, hook, limits) as container:
        container.wait_for("ready")
        return probe_and_end(container, attach)


def probe_and_end(
    container: "Running", attach: "Callable[[Cell, int, Path], Any] | None" = None
) -> End:
    """Put a uretprobe on the victim of a container that waits, let it go, tell how it ended."""
    probe = (attach or _own_probe)(container.cell, container.pid(), container.rootfs / "victim")
    try:
        (container.rootfs / "go").touch()
        code, output, errors = container.end()
        return End(code, output, errors, probe.hits())
    finally:
        probe.close()


def unprobed(
    cell: Cell, runtime: str, profile: dict[str, Any], *args: str, hook: bool = False
) -> End:
    """Run the victim, or ``args`` with the stack's /usr, with no probe anywhere."""
    command = list(args) or ["/victim", "answer", str(ROUNDS)]
    with Running(cell, runtime, profile, command, hook) as container:
        (container.rootfs / "go").touch()
        return End(*container.end())


def running(
    cell: Cell, runtime: str, profile: dict[str, Any], *args: str, hook: bool = False
) -> "Running":
    """Return a container to be entered, in which ``args`` run while others look at it."""
    return Running(cell, runtime, profile, args, hook)


def judge(end: End, *, lives: bool) -> Outcome:
    """Say what is wrong with ``end``: a life without hits is no pass, nor any death but SIGSEGV."""
    outcome = Outcome(end.told)
    seen = f"{end.told}; {end.output.strip()[-200:]} {end.errors.strip()[-600:]}"
    if lives:
        outcome.expect(end.lived, f"must live: {seen}")
        return outcome.expect(end.hits == ROUNDS, f"{end.hits} hits, {ROUNDS} must be counted")
    return outcome.expect(end.signal == signal.SIGSEGV, f"must die of SIGSEGV: {seen}")


def _own_probe(_cell: Cell, pid: int, victim: Path) -> Uretprobe:
    return Uretprobe(victim, function_offset(victim, "answer"), pid)


class Running:
    """A container from its start to its removal."""

    serial = itertools.count(1)

    def __init__(
        self,
        cell: Cell,
        runtime: str,
        profile: dict[str, Any] | None,
        args: Sequence[str],
        hook: bool,
        limits: dict[str, int] | None = None,
    ) -> None:
        self.cell, self.runtime = cell, runtime
        self.name = f"lab{next(Running.serial)}"
        self.inside = f"{BUNDLES}/{self.name}"
        self.folder = cell.root / self.inside[1:]
        self.rootfs = self.folder / "rootfs"
        self._fill(profile, args, hook, limits or {})

    def _fill(
        self,
        profile: dict[str, Any] | None,
        args: Sequence[str],
        hook: bool,
        limits: dict[str, int],
    ) -> None:
        for name in ("proc", "dev", "usr", "etc", "tmp", "run/lab/tree"):
            (self.rootfs / name).mkdir(parents=True)
        for name in ("bin", "lib", "lib64", "sbin"):
            (self.rootfs / name).symlink_to(f"usr/{name}")
        # 9p has no uprobes: the probed file is on the stack's tmpfs.
        shutil.copy(self.cell.root / "run/lab/bin/victim", self.rootfs / "victim")
        config = _config(args, profile, self.cell.hook() if hook else "")
        config["process"]["rlimits"] = [
            {"type": f"RLIMIT_{kind}", "soft": limit, "hard": limit}
            for kind, limit in limits.items()
        ]
        (self.folder / "config.json").write_text(json.dumps(config))

    def __enter__(self) -> "Running":
        command = [self.runtime, "run", "--bundle", self.inside]
        command += ["--pid-file", f"{self.inside}/pid", self.name]
        self.process = subprocess.Popen(
            self.cell.command(command),
            # A pipe and never /dev/null: the sweep calls fchmod on what is its standard input.
            stdin=subprocess.PIPE,
            stdout=(self.folder / "stdout").open("w"),
            stderr=(self.folder / "stderr").open("w"),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.cell.run([self.runtime, "delete", "--force", self.name])
        shutil.rmtree(self.folder)

    def wait_for(self, name: str) -> None:
        """Wait until the container has made the file ``name``."""
        deadline = time.monotonic() + SECONDS
        while not (self.rootfs / name).exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the container did not start: {self._read('stderr')}")
            time.sleep(0.1)

    def wait_for_output(self) -> None:
        """Wait until the program in the container has printed something."""
        deadline = time.monotonic() + SECONDS
        while not (self.folder / "stdout").stat().st_size:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the container did not start: {self._read('stderr')}")
            time.sleep(0.1)

    def pid(self) -> int:
        """Return the pid of the container's process."""
        path = self.folder / "pid"
        deadline = time.monotonic() + SECONDS
        while not (path.exists() and path.read_text()):
            if time.monotonic() > deadline:
                raise RuntimeError("the runtime wrote no pid file")
            time.sleep(0.1)
        return int(path.read_text())

    def end(self) -> tuple[int, str, str]:
        """Wait for the container's end; give its code, output and errors."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(SECONDS)
        if self.process.returncode is None:
            raise RuntimeError(f"the container did not end in {SECONDS} s: {self._read('stderr')}")
        return self.process.returncode, self._read("stdout"), self._read("stderr")

    def _read(self, name: str) -> str:
        return (self.folder / name).read_text(errors="replace")


def _config(args: Sequence[str], profile: dict[str, Any] | None, hook: str) -> dict[str, Any]:
    from shim.profile.docker import DEFAULT_CAPABILITIES

    sets = ("bounding", "effective", "permitted")
    binds = [("/usr", "/usr"), ("/etc", "/etc"), (TREE, TREE)]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "hostname": "lab",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "args": list(args),
            "env": ["PATH=/usr/sbin:/usr/bin", "HOME=/"],
            "noNewPrivileges": False,
            "capabilities": dict.fromkeys(sets, sorted(DEFAULT_CAPABILITIES)),
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
            *(
                {"destination": place, "type": "bind", "source": source, "options": ["bind", "ro"]}
                for source, place in binds
            ),
        ],
        "hooks": {"prestart": [{"path": hook, "args": [hook]}]} if hook else {},
        "linux": {
            "namespaces": [{"type": k} for k in ("pid", "network", "ipc", "uts", "mount")],
            **({"seccomp": profile} if profile else {}),
        },
    }
