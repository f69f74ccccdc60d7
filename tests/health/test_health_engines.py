"""Engines asked whether they answer, and for a container: real ones, on sockets of their own."""

import json
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shim.catalog import kernel_injected
from shim.errors import ShimError
from shim.health import docker as docker_health
from shim.health import grpc as grpc_health
from shim.health import inspection, podman
from support import engines
from support.checkout import CHECKOUT
from support.isolated import BARE

# As a managed host has it: no site-packages, one process that asks.
_LOOK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from shim.health import inspection
first = inspection.before([], 2)
print(json.dumps([first, inspection.after([], 2, first)]))
"""
DENIED = {name: {"verdict": "ERRNO(1)", "expected": ""} for name in kernel_injected()}
STILL_DENIED = {name: {"verdict": "ERRNO(1)", "expected": "ERRNO(1)"} for name in DENIED}


def _look(engine: engines.Engine, **environment: str) -> list[dict[str, Any]]:
    """Look twice at the host that the engine is on."""
    words = [f"{key}={value}" for key, value in environment.items()]
    command = [*engine.host.enter, "env", *words, *BARE, "-c", _LOOK, str(CHECKOUT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _of(told: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    key = "engine" if kind == "engines" else "how"
    [found] = [each for each in told[kind] if each[key] == name]
    return {name: value for name, value in found.items() if name != key}


@pytest.fixture(scope="module")
def docker() -> Iterator[engines.Docker]:
    """Start a dockerd."""
    with engines.dockerd() as engine:
        yield engine


def test_docker_answers_and_its_containers_are_judged(docker: engines.Docker) -> None:
    """Its version and the verdicts of its default profile, before and after; nothing is left."""
    held = [("ps", "--all", "--quiet"), ("images", "--all", "--quiet"), ("volume", "ls", "--quiet")]
    before = [docker(*words).stdout for words in held]
    looks = _look(docker, DOCKER_HOST=f"unix://{docker.socket}")
    for each, calls in zip(looks, (DENIED, STILL_DENIED), strict=True):
        assert _of(each, "engines", "docker")["answers"] is True
        assert _of(each, "engines", "docker")["said"].startswith("20.10.")
        container = {"profile": "", "started": True, "reason": "", "calls": calls}
        assert _of(each, "containers", "docker") == container
        assert each["not_tried"] == 2
    assert [docker(*words).stdout for words in held] == before


def test_a_docker_that_hangs_does_not_answer(docker: engines.Docker) -> None:
    """A stopped daemon is told as one that gives no answer in time, and so is its container."""
    assert docker.daemon is not None
    path = str(docker.socket)
    pid = docker.host.run(f"cat {docker.folder}/pid").stdout
    docker.host.run(f"kill -STOP {pid}")
    try:
        with pytest.raises(TimeoutError):
            docker_health.version(path, 0.5)
    finally:
        docker.host.run(f"kill -CONT {pid}")
        docker.daemon.send_signal(signal.SIGCONT)  # nsenter stops with its child
    assert docker_health.version(path, 10).startswith("20.10.")


def test_a_docker_that_makes_no_containers_says_why(docker: engines.Docker) -> None:
    """A runtime that refuses is the reason, without the container's passing name."""
    broken = docker.folder / "broken"
    broken.write_text("#!/bin/sh\necho >&2 no such thing\nexit 1\n")
    broken.chmod(0o755)
    docker.stop()
    docker.configure({"runtimes": {"broken": {"path": str(broken)}}, "default-runtime": "broken"})
    docker.start()
    before = docker("images", "--quiet").stdout
    for each in _look(docker, DOCKER_HOST=f"unix://{docker.socket}"):
        container = _of(each, "containers", "docker")
        assert (container["started"], container["calls"]) == (False, {})
        assert container["reason"]
        assert "seccomp-shim-look" not in container["reason"]
    assert docker("images", "--quiet").stdout == before
    assert docker("ps", "--all", "--quiet").stdout == ""


@pytest.mark.alone
def test_podman_answers_and_its_containers_are_judged() -> None:
    """Its version and the verdicts of its default profile; storage and cgroups stay as they are."""
    with engines.podman(engine_conf='runtime = "runc"') as engine:
        listed = "find /run /var/lib /tmp /sys/fs/cgroup -name '*libpod*' -o -name '*look*' | sort"
        # What this view of the host was written to, and no other on this machine.
        layers = [f"{engine.folder}/scratch{place}/upper" for place in ("/run", "/var/lib")]
        everything = f"find {' '.join(layers)} | sort"
        engine.host.run(
            "mkdir -p /run/runc/x && rmdir /run/runc/x"
        )  # runc leaves its own directory
        before = [engine.host.run(each).stdout.splitlines() for each in (listed, everything)]
        looks = _look(engine, CONTAINERS_CONF=str(engine.conf))
        for each, calls in zip(looks, (DENIED, STILL_DENIED), strict=True):
            assert _of(each, "engines", "podman")["answers"] is True
            assert _of(each, "engines", "podman")["said"][0].isdigit()
            container = {"profile": "", "started": True, "reason": "", "calls": calls}
            assert _of(each, "containers", "podman") == container
        after = [engine.host.run(each).stdout.splitlines() for each in (listed, everything)]
        for now, was in zip(after, before, strict=True):
            assert set(now) <= set(was)


def test_a_podman_that_fails_or_hangs_says_so(tmp_path: Path) -> None:
    """Its own last line is told; one that hangs is ended."""
    path = tmp_path / "podman"
    path.write_text("#!/bin/sh\necho >&2 'Error: database is locked'\nexit 125\n")
    path.chmod(0o755)
    with pytest.raises(ShimError, match="database is locked"):
        podman.version(str(path), 10)
    seen = podman.observe(str(path), 10)
    assert (seen.started, seen.reason) == (False, "Error: database is locked")
    path.write_text("#!/bin/sh\nexec sleep 600\n")
    with pytest.raises(TimeoutError):
        podman.version(str(path), 0.5)


def test_what_podman_leaves_is_killed_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number whose owner has other words by now is left alone."""
    name = f"seccomp-shim-look-{uuid.uuid4().hex}"
    wait = "read word; exec sleep 60"
    with (
        subprocess.Popen(["sh", "-c", wait, name], stdin=subprocess.PIPE) as left,
        subprocess.Popen(["sleep", "60"]) as other,
    ):
        monkeypatch.setattr(podman, "_CLEAN_SECONDS", 0)
        monkeypatch.setattr(podman, "_naming", lambda _: [left.pid, other.pid])
        podman._wait_for_all(name)
        assert left.wait() == -signal.SIGKILL
        assert other.poll() is None
        other.kill()


def test_containerd_answers_on_its_socket() -> None:
    """It is asked without any client of its own; one that is stopped does not answer."""
    with engines.containerd() as engine:
        address = str(engine.folder / "sock")
        assert grpc_health.version(address, 10) == ""
        told = inspection.engines({"CONTAINERD_ADDRESS": address, "DOCKER_HOST": "unix:///none"})
        assert _of({"engines": told}, "engines", "containerd") == {"answers": True, "said": ""}
        engine.host.run("pkill -STOP -x containerd")
        engine.host.run("while ps -C containerd -o stat= | grep -v ^T; do sleep 0.01; done")
        with pytest.raises(TimeoutError):
            grpc_health.version(address, 0.5)


def test_what_answers_otherwise_is_no_engine(tmp_path: Path) -> None:
    """A socket where nobody listens, and one that hangs up, are told as such."""
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        found = inspection.engines({"CONTAINERD_ADDRESS": path, "DOCKER_HOST": f"unix://{path}"})
        for name in ("docker", "containerd"):
            told = _of({"engines": found}, "engines", name)
            assert told == {"answers": False, "said": "Connection refused"}
    absent = inspection.engines({"CONTAINERD_ADDRESS": "/none", "DOCKER_HOST": "unix:///none"})
    assert not [each for each in absent if each["engine"] in ("docker", "containerd")]
