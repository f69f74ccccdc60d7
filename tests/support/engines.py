"""Real engines for the tests: dockerd, podman and containerd, each in a host view of its own.

Everything of an engine is in one temporary directory, a mount namespace that shows throw-away
layers over /etc, /opt, /run, /usr/local, /var/lib and /var/log, and a PID namespace: what it has
started and mounted ends with it, even if the test is interrupted.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import image, need
from support.host import Host, throwaway

DOCKERD, DOCKER = "/usr/sbin/dockerd", "/usr/bin/docker"
DAEMON_JSON = "/etc/docker/daemon.json"
USER = 7000  # of rootless podman; known in its own view of the host only
_START_SECONDS = 60
# crun refuses cgroup v1 beside v2.
CGROUP2_ALONE = (
    "[ -e /sys/fs/cgroup/cgroup.controllers ] || "
    "{ umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup; }"
)
# No limit is raised (that takes CAP_SYS_RESOURCE) and none is set in cgroups.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = []
netns = "none"
pids_limit = 0
seccomp_profile = "{profile}"
{containers}
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
{engine}
"""


@dataclass
class Engine:
    """What all engines have: a directory, a view of the host, and the image's files."""

    folder: Path
    host: Host
    rootfs: Path
    client: list[str] = field(default_factory=list)

    def command(self, *args: str) -> list[str]:
        """Return the command line of the engine's client with ``args``."""
        return [*self.client, *args]

    def __call__(
        self, *args: str, code: int | None = 0, data: bytes | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run the client; a status other than ``code`` fails the test (None: any is right)."""
        command = self.command(*args)
        done = subprocess.run(command, input=data or b"", capture_output=True, check=False)
        text = done.stdout.decode(), done.stderr.decode()
        assert code in {None, done.returncode}, f"{command}: {done.returncode}\n{text[0]}{text[1]}"
        return subprocess.CompletedProcess(command, done.returncode, *text)

    def run_args(self, *args: str) -> list[str]:
        """Return ``args`` of run or create with the options that containers need here."""
        verb, *rest = args
        return [verb, "--network", "none", *rest]

    def calls(self, *args: str) -> dict[int, int]:
        """Run the client and give the outcomes that the image's caller printed."""
        return image.outcomes(self(*args).stdout)

    def calls_at_terminal(self, *args: str) -> dict[int, int]:
        """Do the same at a terminal."""
        code, text = image.at_terminal(self.command(*args))
        assert code == 0, text
        return image.outcomes(text)

    def logged(self, container: str, count: int) -> dict[int, int]:
        """Wait until the log of ``container`` has ``count`` lines; give the last outcomes."""
        deadline = time.monotonic() + _START_SECONDS
        while (text := self("logs", container).stdout).count("\n") < count:
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
        return image.outcomes(text)


@dataclass
class Docker(Engine):
    """A dockerd; ``socket`` is its address as a path."""

    socket: Path = Path()
    flags: Sequence[str] = ()
    daemon: "subprocess.Popen[bytes] | None" = None

    def configure(self, document: dict[str, Any]) -> None:
        """Write daemon.json; it holds from the next ``start`` or ``reload`` on."""
        text = json.dumps(document)
        self.host.run(f"mkdir -p /etc/docker; cat >{DAEMON_JSON} <<'END'\n{text}\nEND")

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        folder = self.folder
        command = [*self.host.enter, DOCKERD, "--host", f"unix://{self.socket}"]
        command += ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
        command += ["--pidfile", f"{folder}/pid", "--storage-driver", "vfs", "--bridge=none"]
        command += ["--iptables=false", "--ip6tables=false", "--shutdown-timeout=1"]
        command += ["--cgroup-parent", f"/{folder.name}", *self.flags]
        with (folder / "log").open("ab") as log:
            self.daemon = subprocess.Popen(command, stdout=log, stderr=log)
        _wait_for(self, self.daemon, "version")

    def reload(self) -> None:
        """Have the daemon read daemon.json again, and wait until it has."""
        log = self.folder / "log"
        seen = len(log.read_bytes())
        self.host.run(f"kill -HUP $(cat {self.folder}/pid)")
        deadline = time.monotonic() + _START_SECONDS
        while b"eloaded configuration" not in log.read_bytes()[seen:]:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the daemon; the containers go with it."""
        if self.daemon and self.daemon.poll() is None:
            self.host.run(f"kill $(cat {self.folder}/pid)", code=None)
            self.daemon.wait(_START_SECONDS)


@contextlib.contextmanager
def dockerd(
    config: dict[str, Any] | None = None, *flags: str, tree: Path | None = None
) -> Iterator[Docker]:
    """Start a dockerd with ``config`` as its daemon.json (none: there is no file) and ``flags``.

    With ``tree`` it is that of another user land, whose root directory this is; the tree stays as
    is.
    """
    for path in (Path(f"{tree or ''}{DOCKERD}"), Path(DOCKER)):
        need.kernel(path.exists(), f"{path} is not installed")
    with _place() as (folder, host, root):
        if tree is not None:
            _go_into(tree, folder, host)
        socket = folder / "docker.sock"
        # A client without plugins, contexts or settings of whoever runs the tests.
        client = ["env", "-u", "DOCKER_CONTEXT", f"DOCKER_CONFIG={folder}/client", DOCKER]
        client += ["--host", f"unix://{socket}"]
        engine = Docker(folder, host, root, client, socket, flags)
        host.run(f"rm -rf {DAEMON_JSON}")
        if config is not None:
            engine.configure(config)
        try:
            engine.start()
            engine("import", "-", image.NAME, data=image.archive(root))
            yield engine
        finally:
            if engine.daemon:
                engine.daemon.kill()
                engine.daemon.wait()


def _go_into(tree: Path, folder: Path, host: Host) -> None:
    """Make ``tree`` the root of ``host``, with a throw-away layer; ``directory`` keeps its path."""
    host.run(
        f"""
        set -eu
        cd {folder}/scratch
        mkdir tree root
        mount -t tmpfs none tree
        mkdir tree/upper tree/work
        mount -t overlay overlay -o lowerdir={tree},upperdir=tree/upper,workdir=tree/work root
        mkdir -p root{folder}
        mount --bind {folder} root{folder}
        mount -t proc proc root/proc
        mount --rbind /sys root/sys
        mount --rbind /dev root/dev
        mount -t tmpfs none root/run
        """
    )
    host.enter += ["chroot", f"{folder}/scratch/root"]


@dataclass
class Podman(Engine):
    """A podman with storage of its own; ``conf`` is its containers.conf."""

    conf: Path = Path()
    cgroups: Sequence[str] = ()

    def run_args(self, *args: str) -> list[str]:
        """Return ``args`` of run or create with the options that containers need here."""
        verb, *rest = args
        return [verb, "--ulimit", "host", *self.cgroups, *rest]


@contextlib.contextmanager
def podman(
    runtime: str = "runc",
    *flags: str,
    rootless: bool = False,
    containers: str = "",
    engine_conf: str = "",
) -> Iterator[Podman]:
    """Yield a podman that runs ``runtime`` (a name or path), with global ``flags``.

    ``containers`` and ``engine_conf`` are lines for these tables of its containers.conf. Its
    default profile denies with EPERM, like Docker's: as shipped it answers ENOSYS, which a test
    syscall that is let through answers, too. runc runs with cgroups, anything else without.
    """
    program = need.program("podman")
    profile = Path("/usr/share/containers/seccomp.json")
    need.kernel(profile.is_file(), "podman's default profile is not installed")
    with _place() as (folder, host, root):
        denying = json.loads(profile.read_text()) | {"defaultErrnoRet": 1}
        denying.pop("defaultErrno", None)
        (folder / "seccomp.json").write_text(json.dumps(denying))
        conf = folder / "containers.conf"
        conf.write_text(
            _CONTAINERS_CONF.format(
                profile=folder / "seccomp.json", containers=containers, engine=engine_conf
            )
        )
        is_runc = os.path.basename(runtime).endswith("runc")
        if not is_runc or rootless:
            host.run(CGROUP2_ALONE)
        (folder / "home").mkdir()
        client = [*host.enter, "env", "-i", f"PATH={os.environ['PATH']}", f"HOME={folder}/home"]
        client += [f"CONTAINERS_CONF={conf}", f"XDG_RUNTIME_DIR={folder}/xdg"]
        if rootless:
            _make_user(folder, host)
            client[len(host.enter) : len(host.enter)] = [
                *("setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"),
            ]
        (folder / "xdg").mkdir(mode=0o700)
        if rootless:
            os.chown(folder / "xdg", USER, USER)
        client += [program, "--root", f"{folder}/home/root", "--runroot", f"{folder}/xdg/c"]
        client += ["--storage-driver", "vfs", "--tmpdir", f"{folder}/xdg/tmp"]
        client += ["--runtime", runtime, *flags]
        cgroups = [] if rootless else [f"--cgroup-parent=/{folder.name}"]
        if not is_runc:
            cgroups = ["--cgroups=disabled"]
        engine = Podman(folder, host, root, client, conf, cgroups)
        engine("import", "-", image.NAME, data=image.archive(root))
        yield engine


def _make_user(folder: Path, host: Host) -> None:
    """Make a user with subordinate ids, in the view alone."""
    need.program("newuidmap")
    host.run(
        f"echo shimtest:x:{USER}:{USER}::{folder}/home:/bin/sh >>/etc/passwd\n"
        f"echo shimtest:x:{USER}: >>/etc/group\n"
        "for file in subuid subgid; do echo shimtest:700000:65536 >/etc/$file; done\n"
        f"chown {USER}:{USER} {folder}/home; chmod 755 {folder}"
    )


@contextlib.contextmanager
def containerd(config: str = "") -> Iterator[Engine]:
    """Start a containerd with ``config`` added to its TOML; the client is its own ctr.

    There is no image: give ``--rootfs ENGINE.rootfs`` to ``ctr run``.
    """
    program, ctr = need.program("containerd"), need.program("ctr")
    with _place() as (folder, host, root):
        toml = folder / "config.toml"
        toml.write_text(
            f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
            f'[grpc]\naddress = "{folder}/sock"\n[ttrpc]\naddress = "{folder}/ttrpc"\n{config}'
        )
        client = [*host.enter, ctr, "--address", f"{folder}/sock", "--namespace", folder.name]
        engine = Engine(folder, host, root, client)
        with (folder / "log").open("ab") as log:
            daemon = subprocess.Popen(
                [*host.enter, program, "--config", str(toml)], stdout=log, stderr=log
            )
        try:
            _wait_for(engine, daemon, "version")
            yield engine
        finally:
            daemon.kill()
            daemon.wait()


@contextlib.contextmanager
def _place() -> Iterator[tuple[Path, Host, Path]]:
    """Yield a directory, a view of the host, and the image's files; all gone afterwards."""
    # Short: the engines make sockets deep in it, whose paths may have 107 characters. Without the
    # underscores that mkdtemp may draw: it names a containerd namespace, too.
    folder = Path(tempfile.gettempdir(), f"shim-{secrets.token_hex(4)}")
    folder.mkdir(mode=0o700)
    try:
        (folder / "scratch").mkdir()
        root = image.rootfs(folder / "rootfs")
        with throwaway(folder / "scratch", pids=True) as host:
            yield folder, host, root
    finally:
        _remove_cgroups(folder.name)
        shutil.rmtree(folder)


def _wait_for(engine: Engine, daemon: "subprocess.Popen[bytes]", *question: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while engine(*question, code=None).returncode:
        alive = daemon.poll() is None and time.monotonic() < deadline
        assert alive, (engine.folder / "log").read_text()
        time.sleep(0.1)


def _remove_cgroups(name: str) -> None:
    """Remove what an engine left behind of its own cgroup ``name``, in every hierarchy."""
    # os.walk takes no offence at those of other tests that go meanwhile.
    for top, folders, _ in os.walk("/sys/fs/cgroup"):
        if name in folders:
            for folder, *_ in os.walk(Path(top, name), topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
