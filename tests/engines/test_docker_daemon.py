"""What is known of a Docker daemon: from a real one's answers, and from answers of others."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from shim.engines.docker.daemon_facts import describe, gather
from shim.errors import ShimError
from shim.host import cache
from shim.host import runtimes as runtime
from support import engines
from support.profiles import DOCKER

STATES = {name: call["state"] for name, call in cache.facts()["syscalls"].items()}
UNKNOWN = dict.fromkeys(STATES, "unknown")
FEATURES = {"annotations": {"io.github.seccomp.libseccomp.version": "2.6.0"}}


@pytest.fixture(scope="module")
def docker() -> Iterator[engines.Docker]:
    """Start a daemon with a default profile and a runtime of the admin's own."""
    with engines.dockerd() as engine:
        profile = engine.folder / "profile.json"
        profile.write_text(json.dumps(DOCKER))
        runtimes = {"seccomp-shim": {"path": "/usr/sbin/runc"}}
        engine.stop()
        engine.configure({"seccomp-profile": str(profile), "runtimes": runtimes})
        engine.start()
        yield engine


@pytest.fixture(scope="module")
def info(docker: engines.Docker) -> dict[str, Any]:
    """Return what that daemon says of itself."""
    answer: dict[str, Any] = json.loads(docker("info", "--format", "{{json .}}").stdout)
    return answer


def test_a_daemon_of_this_host_is_known(docker: engines.Docker) -> None:
    """Version, runtimes, its own profile, this kernel's states and the runtime's libseccomp."""
    found = describe(docker.client)
    assert found.version.startswith("20.10.")
    assert (found.machine, found.seccomp, found.confines) == ("x86_64", True, True)
    assert {"runc", "seccomp-shim"} <= found.runtimes
    assert found.default_runtime == "runc"
    assert found.states == STATES
    assert found.libseccomp == runtime.libseccomp_version("runc")
    assert found.builtin is not None
    assert found.configured == str(docker.folder / "profile.json")
    assert found.configured_profile is not None
    assert found.configured_profile.tree == DOCKER


def test_looking_from_a_child_process_finds_the_same(
    docker: engines.Docker, info: dict[str, Any]
) -> None:
    """A program with threads learns what one without learns."""
    address = f"unix://{docker.socket}"
    assert gather(info, address, apart=True) == gather(info, address)


def test_a_daemon_elsewhere_is_not_taken_for_this_hosts(
    docker: engines.Docker, info: dict[str, Any]
) -> None:
    """Another kernel, another machine's memory or no socket here: nothing is said of its kernel."""
    address = f"unix://{docker.socket}"
    for answer, where in (
        (info, "tcp://192.0.2.1:2376"),
        (info, "ssh://user@example.org"),
        (info, ""),
        ({**info, "KernelVersion": "6.12.5"}, address),
        ({**info, "MemTotal": info["MemTotal"] - 4096}, address),
    ):
        found = gather(answer, where)
        assert found.states == UNKNOWN
        assert found.libseccomp is None
        assert found.configured_profile is None


def test_another_file_system_is_not_read(docker: engines.Docker, info: dict[str, Any]) -> None:
    """A daemon in a container of this host shares the kernel, not the files."""
    elsewhere = gather({**info, "Name": "another"}, f"unix://{docker.socket}")
    gone = gather(info, f"unix://{docker.folder}/nothing-listens-here")
    for found in (elsewhere, gone):
        assert found.states == STATES
        assert found.libseccomp is None
        assert found.configured_profile is None


def test_a_daemon_tells_of_its_runtime(info: dict[str, Any]) -> None:
    """Docker 25 and newer say which libseccomp a runtime has, wherever they run."""
    status = {"org.opencontainers.runtime-spec.features": json.dumps(FEATURES)}
    runtimes = {"runc": {"path": "runc", "status": status}}
    assert gather({**info, "Runtimes": runtimes}, "tcp://192.0.2.1:2376").libseccomp == "2.6.0"
    for broken in ({}, {"org.opencontainers.runtime-spec.features": "{"}, None):
        runtimes = {"runc": {"path": "runc", "status": broken}}  # type: ignore[dict-item]
        assert gather({**info, "Runtimes": runtimes}, "").libseccomp is None


@pytest.mark.parametrize(
    ("options", "seccomp", "confines", "configured"),
    [
        (["name=seccomp,profile=default"], True, True, ""),
        (["name=apparmor", "name=seccomp,profile=builtin"], True, True, ""),
        (["name=seccomp,profile=unconfined"], True, False, ""),
        (["name=seccomp,profile=/a,b.json"], True, True, "/a,b.json"),
        (["name=apparmor"], False, True, ""),
        (None, False, True, ""),
    ],
)
def test_security_options_are_read(
    info: dict[str, Any], options: object, seccomp: bool, confines: bool, configured: str
) -> None:
    """Each form that dockerd prints since 20.10 is understood."""
    found = gather({**info, "SecurityOptions": options}, "")
    assert (found.seccomp, found.confines, found.configured) == (seccomp, confines, configured)


def test_a_test_syscall_is_one_call_more(info: dict[str, Any]) -> None:
    """A test syscall needs help on whatever kernel, and the real calls still count."""
    states = gather(info, "").states
    assert states
    assert gather(info, "", 400).states == {**states, "test-syscall-400": "filtered"}


def test_windows_is_another_machine(info: dict[str, Any]) -> None:
    """A daemon of Windows is not taken for one on x86-64 Linux."""
    assert gather({**info, "OSType": "windows"}, "").machine == "windows"


@pytest.mark.parametrize(
    "answer", [{}, {"host": {"arch": "amd64"}, "version": {}}, {"ServerVersion": "20.10.24"}]
)
def test_what_is_no_docker_daemon_is_refused(answer: dict[str, Any]) -> None:
    """Podman, which answers to docker's command line, is not taken for Docker."""
    with pytest.raises(ShimError, match="no Docker daemon"):
        gather(answer, "")


def test_a_daemon_that_does_not_answer_is_an_error_on_one_line(docker: engines.Docker) -> None:
    """What the client says is the message."""
    command = [*docker.client[:-1], f"unix://{docker.folder}/no-socket"]
    with pytest.raises(ShimError, match="docker daemon running") as caught:
        describe(command)
    assert "\n" not in str(caught.value)
    with pytest.raises(ShimError, match="no JSON"):
        describe(["/bin/true"])
