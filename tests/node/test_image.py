"""The Dockerfile, built by real engines that have no network."""

from pathlib import Path

from node import nodeimage
from support import engines


def test_podman_builds_it(wheels: Path) -> None:
    """Podman builds the image and runs its probe, which says that nothing was done yet."""
    with engines.podman("crun") as podman:
        nodeimage.build(podman, wheels)
        done = podman(*podman.run_args("run", "--rm", nodeimage.NAME, "ready"), code=1)
        assert done.stdout == "it has only just begun\n"


def test_docker_builds_it(wheels: Path) -> None:
    """Docker does, too; what is no job is said in one line."""
    with engines.dockerd() as docker:
        nodeimage.build(docker, wheels)
        done = docker(*docker.run_args("run", "--rm", nodeimage.NAME, "ready"), code=1)
        assert done.stdout == "it has only just begun\n"
        done = docker(*docker.run_args("run", "--rm", nodeimage.NAME, "install", "x"), code=2)
        assert done.stdout == "seccomp-shim: install and remove take one of: containerd, crio\n"
