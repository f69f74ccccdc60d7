"""Every way in with real engines on an ordinary machine: a test syscall stands for the calls.

Denied it ends with EPERM, let through with ENOSYS: no kernel has it.
"""

import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker as docker_sdk
import pytest

from shim.engines.docker import shim_client
from support import engines, image, installed, need
from support.containers import ENOSYS, EPERM, TEST_SYSCALL
from support.engines import Docker, Engine, Podman

CALL = [image.CALLER, str(TEST_SYSCALL)]
WAYS = ("start", "exec", "exec -it", "exec -d", "restart")
DENIED = dict.fromkeys(WAYS, EPERM)
LET_THROUGH = dict.fromkeys(WAYS, ENOSYS)
PODMAN = [("runc", False), ("crun", False), ("runc", True), ("crun", True)]
_names = (f"shim-test-{number}" for number in itertools.count())


def everywhere(engine: Engine, *options: str) -> dict[str, int]:
    """Return what the test syscall ended with in a container, in an exec, after a restart."""
    name = next(_names)
    engine(*engine.run_args("run", "-d", "--name", name, *options, image.NAME, *CALL, "stay"))
    found = {"start": engine.logged(name, 1)[TEST_SYSCALL], **within(engine, name)}
    engine("restart", "--time", "0", name)
    found["restart"] = engine.logged(name, 2)[TEST_SYSCALL]
    engine("rm", "--force", name)
    return found


def within(engine: Engine, name: str) -> dict[str, int]:
    """Return what it ended with in an exec in a container: with pipes, a terminal, nothing."""
    found = {
        "exec": engine.calls("exec", name, *CALL)[TEST_SYSCALL],
        "exec -it": engine.calls_at_terminal("exec", "-it", name, *CALL)[TEST_SYSCALL],
    }
    engine("exec", "-d", name, "sh", "-c", f"{' '.join(CALL)} >/out.new; mv /out.new /out")
    deadline = time.monotonic() + 60
    while not (out := engine("exec", name, "cat", "/out", code=None).stdout):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found | {"exec -d": image.outcomes(out)[TEST_SYSCALL]}


# --- Docker ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    """Start a daemon that has the wrapper registered by the verb."""
    with engines.dockerd() as docker:
        installed.install(docker.host)
        installed.verb(docker.host, "install", "docker")
        yield docker


def verbose(docker: Docker) -> Docker:
    """Return the same daemon behind ``seccomp-shim docker``."""
    enter = installed.command(docker.host, "docker", "--host", f"unix://{docker.socket}")
    return replace(docker, client=enter)


def test_docker_denies(docker: Docker) -> None:
    """Without us the test syscall is denied: whatever else is seen here is our doing."""
    assert everywhere(docker) == DENIED


def test_docker_registered_runtime(docker: Docker) -> None:
    """With ``--runtime seccomp-shim`` it is let through, everywhere in the container."""
    assert everywhere(docker, "--runtime", "seccomp-shim") == LET_THROUGH


def test_docker_command_line(docker: Docker) -> None:
    """With ``seccomp-shim docker`` in place of docker nothing else need be said."""
    assert everywhere(verbose(docker)) == LET_THROUGH


def test_docker_sdk(docker: Docker) -> None:
    """A client of the SDK, wrapped by ours, and its containers and execs."""
    settings = docker.folder / "settings.yaml"
    settings.write_text(f"test_syscall: {TEST_SYSCALL}\nlog: {docker.folder}/sdk.jsonl\n")
    plain = docker_sdk.DockerClient(base_url=f"unix://{docker.socket}")
    client = shim_client(plain, settings=str(settings))
    for ours, expected in ((plain, EPERM), (client, ENOSYS)):
        container = ours.containers.run(
            image.NAME, [*CALL, "stay"], detach=True, network_mode="none"
        )
        assert docker.logged(str(container.id), 1) == {TEST_SYSCALL: expected}
        _, output = container.exec_run(CALL)
        assert isinstance(output, bytes)
        assert image.outcomes(output.decode()) == {TEST_SYSCALL: expected}
        container.restart(timeout=0)
        assert docker.logged(str(container.id), 2) == {TEST_SYSCALL: expected}
        container.remove(force=True)
    plain.close()


@pytest.fixture
def compose(docker: Docker, tmp_path: Path) -> "Compose":
    """Return docker-compose for this daemon."""
    return Compose(docker, tmp_path)


class Compose:
    """A project of two services: one that names our runtime, and one that names none."""

    def __init__(self, docker: Docker, folder: Path) -> None:
        path = need.program("docker-compose")
        self.docker, self.file = docker, folder / "docker-compose.yml"
        service = {"image": image.NAME, "command": [*CALL, "stay"], "network_mode": "none"}
        services = {"plain": service, "named": service | {"runtime": "seccomp-shim"}}
        self.file.write_text(json.dumps({"version": "2.4", "services": services}))
        host = f"DOCKER_HOST=unix://{docker.socket}"
        self.command = ["env", host, path, "--project-name", next(_names), "--file", str(self.file)]

    def __call__(self, *words: str) -> str:
        """Run it."""
        done = subprocess.run([*self.command, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def seen(self) -> dict[str, list[int]]:
        """Start both, exec in both; give what the test syscall ended with in each."""
        self("up", "--detach")
        found = {}
        for name in ("plain", "named"):
            ident = self("ps", "--quiet", name).strip()
            inside = image.outcomes(self("exec", "-T", name, *CALL))
            found[name] = [self.docker.logged(ident, 1)[TEST_SYSCALL], inside[TEST_SYSCALL]]
        self("down", "--timeout", "0")
        return found


def test_docker_compose(compose: Compose) -> None:
    """A service that names the runtime is covered, and one that does not is not."""
    assert compose.seen() == {"plain": [EPERM] * 2, "named": [ENOSYS] * 2}


def test_docker_default_runtime(docker: Docker, compose: Compose) -> None:
    """As default runtime it covers every container, compose's too, until it is rolled back."""
    installed.verb(docker.host, "install", "docker", "--default")
    try:
        assert everywhere(docker) == LET_THROUGH
        assert compose.seen() == {"plain": [ENOSYS] * 2, "named": [ENOSYS] * 2}
    finally:
        installed.verb(docker.host, "uninstall", "docker", "--force")
    docker.stop()
    docker.start()
    assert everywhere(docker) == DENIED
    installed.verb(docker.host, "install", "docker")


# --- Podman ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=PODMAN, ids=lambda p: f"{p[0]}-{('root', 'user')[p[1]]}")
def podman(request: pytest.FixtureRequest) -> Iterator[Podman]:
    """Yield each podman with its settings in /etc, where the verb changes them."""
    runtime, rootless = request.param
    with engines.podman(runtime, rootless=rootless) as podman:
        installed.install(podman.host)
        podman.host.run(f"install -m 644 {podman.conf} /etc/containers/containers.conf")
        podman.client.remove(f"CONTAINERS_CONF={podman.conf}")
        yield podman


def test_podman_denies(podman: Podman) -> None:
    """Without us the test syscall is denied."""
    assert everywhere(podman) == DENIED


def test_podman_runtime(podman: Podman) -> None:
    """With the wrapper in the runtime's place it is let through, everywhere in the container."""
    installed.verb(podman.host, "install", "podman")
    try:
        assert everywhere(podman) == LET_THROUGH
    finally:
        installed.verb(podman.host, "uninstall", "podman")


def test_podman_hooks(podman: Podman) -> None:
    """By hooks containers are covered; what runc execs is not, as crun has its filter kept."""
    installed.verb(podman.host, "install", "podman", "--way", "hooks")
    try:
        seen = everywhere(podman)
    finally:
        installed.verb(podman.host, "uninstall", "podman")
    assert (seen["start"], seen["restart"]) == (ENOSYS, ENOSYS)


# --- containerd ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("binary", "expected"),
    [("/usr/sbin/runc", EPERM), (f"{installed.BIN}/seccomp-shim-runc", ENOSYS)],
)
def test_containerd(containerd: Engine, binary: str, expected: int) -> None:
    """Through ctr, with BinaryName: what runs, and what is exec'd with and without a terminal."""
    name = next(_names)
    run = ["run", "--rootfs", "--seccomp", "--runc-binary", binary]
    root = str(containerd.rootfs)
    assert containerd.calls(*run, "--rm", root, name, *CALL) == {TEST_SYSCALL: expected}
    containerd(*run, "--detach", root, name, *CALL, "stay")
    execute = ["tasks", "exec", "--exec-id"]
    assert containerd.calls(*execute, "pipes", name, *CALL) == {TEST_SYSCALL: expected}
    seen = containerd.calls_at_terminal(*execute, "terminal", "--tty", name, *CALL)
    assert seen == {TEST_SYSCALL: expected}
    containerd("tasks", "kill", "--signal", "KILL", name)
    containerd("tasks", "delete", "--force", name)
    # Started again from the same container: what a restart is here.
    containerd("tasks", "start", "--detach", name)
    assert containerd.calls(*execute, "again", name, *CALL) == {TEST_SYSCALL: expected}


@pytest.fixture(scope="module")
def containerd() -> Iterator[Engine]:
    """Start one."""
    with engines.containerd() as containerd:
        installed.install(containerd.host)
        yield containerd
