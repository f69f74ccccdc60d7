"""Real engines in the guest: dockerd, podman, containerd, and the image of their containers."""

import io
import itertools
import json
import shlex
import shutil
import subprocess
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vm.inside.cell import SECONDS, TREE, Cell
from vm.inside.container import TREE_OUTSIDE

IMAGE = "lab"
CRI_IMAGE = "docker.io/library/shim-test:latest"
TREE_PROFILE = Path(TREE_OUTSIDE, "profiles/docker/default.json")
_serial = itertools.count(1)


class Engine:
    """An engine of the stack; its files are in ``directory``, on tmpfs: 9p has no uprobes."""

    def __init__(self, cell: Cell, name: str) -> None:
        self.cell = cell
        self.inside = f"/run/{name}{next(_serial)}"
        self.folder = cell.root / self.inside[1:]
        self.folder.mkdir()
        self.client = [name]

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, *args: str, data: bytes | None = None) -> str:
        """Run the client; give its output."""
        return call(self.cell, [*self.client, *args], data)

    def starting(self, name: str, options: Sequence[str], args: Sequence[str]) -> list[str]:
        """Return the command that runs ``args`` as container ``name`` and waits for its end."""
        return [*self.client, "run", "--name", name, *options, IMAGE, *args]

    def restarting(self, name: str) -> list[str]:
        """Return the command that restarts it and waits for its end."""
        return self.waiting(name, [*self.client, "restart", name])

    def waiting(self, name: str, command: Sequence[str]) -> list[str]:
        """Return a command that runs ``command``, then waits for the end of container ``name``."""
        client = shlex.join(self.client)
        script = f"{shlex.join(command)} >&2 && code=$({client} wait {name})"
        script += f" && {client} logs {name} | tail -n 1; exit ${{code:-1}}"
        return ["sh", "-c", script]

    def executing(self, name: str, args: Sequence[str], terminal: bool) -> list[str]:
        """Return the command that runs ``args`` in it, at a terminal or without one."""
        return [*self.client, "exec", *(["-it"] if terminal else []), name, *args]

    def remove(self, name: str) -> None:
        """Remove the container."""
        self.run("rm", "--force", name)


class Daemon:
    """A daemon of the stack, from when it answers until it is stopped."""

    def __init__(self, cell: Cell, command: list[str], log: Path, ready: list[str]) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(cell.command(command), stdout=out, stderr=out)
        deadline = time.monotonic() + SECONDS
        while cell.run(ready).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {self.said()}")
            time.sleep(2)  # the client costs the guest's only processor a second

    def said(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(SECONDS)


class Docker(Engine):
    """The stack's dockerd, which all cases share, with its configuration where Docker has it."""

    started: Daemon | None = None

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.inside = "/run/docker"
        self.folder = cell.root / self.inside[1:]
        self.folder.mkdir(exist_ok=True)
        self.socket = f"{self.inside}/sock"
        self.client = ["docker", "--host", f"unix://{self.socket}"]
        if Docker.started is None:
            self._configure()
            Docker.started = self._start()
            self.run("import", "-", IMAGE, data=image(cell))

    def _configure(self) -> None:
        """Where its own default profile lets uretprobe pass, give it that of its predecessors."""
        if self.cell.docker_allows:
            place = self.cell.root / "etc/docker"
            place.mkdir(exist_ok=True)
            shutil.copy(TREE_PROFILE, place / "old.json")
            config = {"seccomp-profile": "/etc/docker/old.json"}
            (place / "daemon.json").write_text(json.dumps(config))

    def _start(self) -> Daemon:
        at = self.inside
        command = ["dockerd", "--host", f"unix://{at}/sock", "--pidfile", f"{at}/pid"]
        command += ["--data-root", f"{at}/data", "--exec-root", f"{at}/exec"]
        command += ["--storage-driver", "vfs", "--bridge=none"]
        command += ["--iptables=false", "--ip6tables=false"]
        return Daemon(self.cell, command, self.folder / "log", [*self.client, "version"])

    def starting(self, name: str, options: Sequence[str], args: Sequence[str]) -> list[str]:
        """Return the command; no network is there."""
        return super().starting(name, ["--network", "none", *options], args)


class DockerCommandLine(Docker):
    """Behind ``seccomp-shim docker``."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.client = [*cell.shim("docker", site=True), *self.client[1:]]


class DockerCompose(Docker):
    """By docker compose."""

    def starting(self, name: str, options: Sequence[str], args: Sequence[str]) -> list[str]:
        """Return the command; ``options`` are more keys of the service."""
        service: dict[str, Any] = {
            "image": IMAGE,
            "container_name": name,
            "command": list(args),
            "network_mode": "none",
        }
        service |= dict(option.split("=") for option in options)
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps({"version": "2.4", "services": {"main": service}}))
        command = ["env", f"DOCKER_HOST=unix://{self.socket}", "docker-compose", "-p", name]
        return self.waiting(name, [*command, "-f", f"{self.inside}/{name}.json", "up", "-d"])


class DockerSdk(Docker):
    """By the SDK for Python."""

    def starting(self, name: str, options: Sequence[str], args: Sequence[str]) -> list[str]:
        """Return the command; there are no ``options``."""
        del options
        arguments = {"name": name, "detach": True, "network_mode": "none"}
        code = (
            f"import docker; from shim.engines.docker import shim_client; "
            f"client = docker.DockerClient(base_url='unix://{self.socket}'); "
            f"shim_client(client).containers.run({IMAGE!r}, {list(args)!r}, **{arguments!r})"
        )
        return self.waiting(name, self.cell.python(code, site=True))


class Podman(Engine):
    """Podman with ``runtime`` and global ``options``, as root or as an ordinary user."""

    def __init__(self, cell: Cell, runtime: str, *options: str, rootless: bool = False) -> None:
        super().__init__(cell, "podman")
        at = self.inside
        home = self.folder / "home"
        (home / "run").mkdir(parents=True, mode=0o700)
        conf = cell.root / "etc/containers/containers.conf"
        conf.parent.mkdir(exist_ok=True)
        conf.write_text(_CONTAINERS_CONF)
        enter = ["env", f"HOME={at}/home", f"XDG_RUNTIME_DIR={at}/home/run"]
        if rootless:
            enter = [*_as_user(cell, home), *enter]
        self.client = [*enter, "podman", "--root", f"{at}/home/root", "--runroot", f"{at}/home/c"]
        self.client += ["--tmpdir", f"{at}/home/tmp", "--storage-driver", "vfs"]
        self.client += ["--runtime", runtime, *options]

    def __enter__(self) -> "Podman":
        self.run("import", "-", IMAGE, data=image(self.cell))
        return self

    def __exit__(self, *_: object) -> None:
        self.run("system", "reset", "--force")


class Containerd(Engine):
    """A containerd, whose client is ctr; ``options`` are more of ``ctr run``."""

    def __init__(self, cell: Cell, *options: str) -> None:
        super().__init__(cell, "containerd")
        self.socket = f"{self.inside}/sock"
        self.client = ["ctr", "--address", self.socket]
        self.options = ["--rootfs", "--seccomp", *options]
        self.config = self.folder / "config.toml"
        self.config.write_text(_CONTAINERD_TOML.format(at=self.inside, image=CRI_IMAGE))

    def __enter__(self) -> "Containerd":
        at = self.inside
        command = ["containerd", "--config", f"{at}/config.toml"]
        ready = [*self.client, "version"]
        self.daemon = Daemon(self.cell, command, self.folder / "log", ready)
        (self.folder / "rootfs").mkdir()
        call(self.cell, ["tar", "-xC", f"{at}/rootfs"], image(self.cell))
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.stop()

    def starting(self, name: str, options: Sequence[str], args: Sequence[str]) -> list[str]:
        """Return the command; there is no image, but a root file system."""
        return [*self.client, "run", *self.options, *options, f"{self.inside}/rootfs", name, *args]

    def restarting(self, name: str) -> list[str]:
        """Return the command that starts the container's next task."""
        return [*self.client, "tasks", "start", name]

    def executing(self, name: str, args: Sequence[str], terminal: bool) -> list[str]:
        """Return the command."""
        command = [*self.client, "tasks", "exec", "--exec-id", f"exec{next(_serial)}"]
        command += [*(["--tty"] if terminal else []), name, *args]
        # At a terminal it tells of the exec that ended before it could be resized.
        return ["sh", "-c", 'exec "$@" 2>/dev/null', "sh", *command] if terminal else command

    def remove(self, name: str) -> None:
        """Remove the task and the container."""
        self.cell.run([*self.client, "tasks", "kill", "--signal", "KILL", name])
        self.cell.run([*self.client, "tasks", "delete", "--force", name])
        self.run("containers", "delete", name)


class Pods(Containerd):
    """The CRI service of a containerd, and pods of ``handler``."""

    def __init__(self, cell: Cell, handler: str) -> None:
        super().__init__(cell)
        self.handler = handler

    def __enter__(self) -> "Pods":
        super().__enter__()
        code = "from support import cri; sys.stdout.buffer.write("
        code += "cri.image_archive(sys.stdin.buffer.read(), '/victim', 'stay'))"
        script = f"{shlex.join(self._python(code))} >{self.inside}/image.tar"
        call(self.cell, ["sh", "-c", script], image(self.cell))
        self.run("--namespace", "k8s.io", "images", "import", f"{self.inside}/image.tar")
        return self

    def _python(self, code: str, *args: str) -> list[str]:
        return self.cell.python(
            f"sys.path.insert(0, {TREE + '/tests'!r}); {code}", *args, site=True
        )

    def _client(self, verb: str, *words: str) -> list[str]:
        code = "from vm.inside.criclient import main; sys.exit(main(sys.argv[1:]))"
        return self._python(code, verb, self.socket, *words)

    def starting(self, name: str, options: Sequence[str], args: Sequence[str]) -> list[str]:
        """Return the command; there are no ``options``."""
        del options
        return self._client("start", self.handler, name, *args)

    def restarting(self, name: str) -> list[str]:
        """Return the command that starts the pod's next container."""
        return self._client("again", name)

    def executing(self, name: str, args: Sequence[str], terminal: bool) -> list[str]:
        """Return the command; the service has terminals only as streams."""
        assert not terminal
        return self._client("exec", name, *args)

    def remove(self, name: str) -> None:
        """Leave the pod to the guest's end, which is near: a client takes seconds to start."""


_CONTAINERD_TOML = """\
version = 2
root = "{at}/data"
state = "{at}/state"
[grpc]
address = "{at}/sock"
[ttrpc]
address = "{at}/ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
"""
_CONTAINERS_CONF = """\
[containers]
default_ulimits = []
log_driver = "k8s-file"
netns = "none"
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def _as_user(cell: Cell, home: Path) -> list[str]:
    """Make an ordinary user with subordinate ids and a cgroup; give the command that becomes it."""
    etc, place = cell.root / "etc", f"/{home.relative_to(cell.root)}"
    if "lab:" not in (etc / "passwd").read_text():
        for name, line in {
            "passwd": f"lab:x:{_USER}:{_USER}::{place}:/bin/sh",
            "group": f"lab:x:{_USER}:",
            "subuid": "lab:700000:65536",
            "subgid": "lab:700000:65536",
        }.items():
            with (etc / name).open("a") as file:
                file.write(f"{line}\n")
    call(cell, ["chown", "-R", f"{_USER}:{_USER}", place])
    return ["setpriv", "--reuid", str(_USER), "--regid", str(_USER), "--clear-groups"]


_USER = 7000


def call(cell: Cell, command: list[str], data: bytes | None = None) -> str:
    """Run ``command`` in the stack; give its output, or fail with what it said."""
    done = subprocess.run(
        cell.command(command), input=data or b"", capture_output=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command}: exit {done.returncode}: {done.stderr.decode()[-600:]}")
    return done.stdout.decode()


def image(cell: Cell) -> bytes:
    """Return an image's file system as a tar archive: the victim, and places to mount on."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(cell.root / "run/lab/bin/victim", "victim")
        for name in ("dev", "etc", "proc", "sys"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
    return data.getvalue()
