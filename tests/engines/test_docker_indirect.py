"""Builds and services: whose runtime they have, and what is said where that adjusts nothing."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import composes, user_lands
from engines.shimmed import CALL, RUNTIME, Shimmed, said, shimmed
from engines.verbs import info, replace_daemon
from engines.verbs import shim as verb
from support import image
from support.containers import ENOSYS, EPERM, TEST_SYSCALL

CLASSIC, BUILDKIT = {"DOCKER_BUILDKIT": "0"}, {"DOCKER_BUILDKIT": "1"}
STEPS = f"its RUN steps run by the default runtime runc, without test-syscall-{TEST_SYSCALL}"
BY_RUNC = (
    f"BuildKit runs its steps by the runc on dockerd's PATH, without test-syscall-{TEST_SYSCALL}"
)
TASKS = f"its tasks run by the default runtime runc, without test-syscall-{TEST_SYSCALL}"
BUILT = "what docker build runs by BuildKit"


@pytest.fixture(scope="module")
def started() -> Iterator[Shimmed]:
    """Start the daemon once for all."""
    with shimmed() as shim:
        context(shim)
        yield shim


def context(shim: Shimmed) -> Path:
    """Make what an image is built from: its only step makes the call."""
    folder = shim.docker.folder / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {image.NAME}\nRUN {json.dumps(CALL)}\n")
    return folder


def built(shim: Shimmed, builder: dict[str, str]) -> int:
    """Build by the docker client itself; give how the step's call ended."""
    progress = [] if builder == CLASSIC else ["--progress=plain"]
    folder = str(shim.docker.folder / "context")
    command = shim.docker.command("build", "--network=none", "--no-cache", *progress, folder)
    done = subprocess.run(
        command, env={**os.environ, **builder}, capture_output=True, text=True, check=True
    )
    # BuildKit puts the step's number and its time before each line.
    text = done.stdout + done.stderr
    lines = [line.split() for line in text.splitlines()]
    [code] = [int(words[-1]) for words in lines if words[-2:-1] == [str(TEST_SYSCALL)]]
    return code


def served(shim: Shimmed) -> int:
    """Run a service of one task, and give how its call ended."""
    docker = shim.docker
    options = ["--detach", "--restart-condition=none", "--network=host", "--name=s"]
    docker("service", "create", *options, image.NAME, *CALL)
    deadline = time.monotonic() + 60
    while not (found := docker("ps", "-aq", "--filter=status=exited")).stdout:
        assert time.monotonic() < deadline, docker("service", "ps", "s").stdout
        time.sleep(0.1)
    return docker.logged(found.stdout.strip(), 1)[TEST_SYSCALL]


@pytest.mark.parametrize(
    "user_land",
    [
        # The oldest and the newest tell the same of what is in between.
        pytest.param(name, marks=[pytest.mark.slow] if name == "trixie" else [])
        for name in user_lands.NAMES
    ],
)
def test_what_the_default_runtime_covers(user_land: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the classic builder's steps and a swarm's tasks; BuildKit takes runc from PATH.

    So a link to the wrapper that comes first there covers them, and then nothing is said of them;
    one that leads nowhere is passed over.
    """
    with shimmed() as shim:
        context(shim)
        docker = shim.docker
        replace_daemon(docker, user_land)
        shim.write_settings()
        docker("swarm", "init", "--advertise-addr=127.0.0.1")
        assert [built(shim, CLASSIC), built(shim, BUILDKIT)] == [EPERM, EPERM]
        shim.configure(default=RUNTIME)
        assert info(docker)["DefaultRuntime"] == RUNTIME
        assert [built(shim, CLASSIC), built(shim, BUILDKIT)] == [ENOSYS, EPERM]
        assert served(shim) == ENOSYS
        words = ["--dry-run", "build", f"{docker.folder}/context"]
        assert BY_RUNC in said(shim(*words, environment=BUILDKIT))
        assert said(shim(*words, environment=CLASSIC)) == ""
        assert said(shim("--dry-run", "service", "create", image.NAME)) == ""
        assert f"--runtime; {BUILT}" in verb(docker.host, "status docker", code=None).stdout
        docker.stop()
        first = docker.folder / "first"
        first.mkdir()
        (first / "runc").symlink_to(docker.folder / "bin/seccomp-shim-runc")
        monkeypatch.setenv("PATH", f"{first}:{os.environ['PATH']}")
        docker.start()
        assert built(shim, BUILDKIT) == ENOSYS
        assert said(shim(*words, environment=BUILDKIT)) == ""
        assert f"exec into it; {BUILT}" in verb(docker.host, "status docker", code=None).stdout
        (first / "runc").unlink()
        (first / "runc").symlink_to(docker.folder / "gone")
        assert built(shim, BUILDKIT) == EPERM
        assert BY_RUNC in said(shim(*words, environment=BUILDKIT))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["build", "."], STEPS),
        (["image", "build", "."], STEPS),
        (["buildx", "build", "."], BY_RUNC),
        (["buildx", "bake"], BY_RUNC),
        (["compose", "build"], BY_RUNC),
        (["service", "create", image.NAME], TASKS),
        (["stack", "deploy", "-c", "compose.yaml", "s"], TASKS),
    ],
)
def test_what_gets_nothing_is_told_once(started: Shimmed, words: list[str], says: str) -> None:
    """The command stays as it is; the line says what its containers lack and what covers them."""
    started.configure()
    done = started("--dry-run", *words)
    assert done.stdout == f"/usr/bin/docker {' '.join(words)}\n"
    assert f" goes as it is: {says}; " in said(done)


@pytest.mark.parametrize("words", [["build", "."], ["buildx", "build", "."], ["service", "create"]])
def test_where_nothing_is_lacking_nothing_is_said(started: Shimmed, words: list[str]) -> None:
    """This kernel kills nothing, and no test system call is set."""
    started.configure(test_syscall=False)
    assert started("--dry-run", *words).stderr == ""


def test_the_builder_is_the_one_that_docker_takes(started: Shimmed) -> None:
    """Without DOCKER_BUILDKIT the daemon says which one it prefers, as the client's help shows."""
    started.configure()
    assert BY_RUNC in said(started("--dry-run", "build", ".", environment=BUILDKIT))
    assert BY_RUNC in said(started("--dry-run", "buildx", "build", ".", environment=CLASSIC))
    assert STEPS in said(started("--dry-run", "compose", "build", environment=CLASSIC))
    assert STEPS in said(started("--dry-run", "build", "."))
    started.docker.configure({"features": {"buildkit": True}})
    started.docker.reload()
    assert BY_RUNC in said(started("--dry-run", "build", "."))
    started.configure()


def test_a_build_goes_on(started: Shimmed) -> None:
    """With its exit status, its output and its standard input."""
    started.configure()
    command = started.command("build", "--network=none", "--no-cache", "-", **CLASSIC)
    text = f"FROM {image.NAME}\nRUN {json.dumps(CALL)}\nRUN exit 3\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert image.outcomes(done.stdout) == {TEST_SYSCALL: EPERM}
    assert STEPS in done.stderr


def test_with_deny_none_is_begun(started: Shimmed) -> None:
    """Who would rather have no container than one that may be killed gets no build, either."""
    started.configure(on_error="deny")
    done = started("build", f"{started.docker.folder}/context", code=125)
    assert (done.stdout, "(not run: the settings say on_error: deny)" in done.stderr) == ("", True)
    started.configure(on_error="deny", default=RUNTIME)
    started("build", "--network=none", f"{started.docker.folder}/context", environment=CLASSIC)


def test_compose_tells_of_the_images_that_it_builds(started: Shimmed) -> None:
    """Those that it is asked to build, and those that are not there."""
    composes.install("trixie", started.docker.folder / "client")
    started.configure(default=RUNTIME)
    folder = started.docker.folder / "context"
    web = {"build": ".", "image": image.NAME}
    services = {"web": web, "new": {"build": "."}, "other": {"image": image.NAME}}
    (folder / "compose.yaml").write_text(json.dumps({"services": services}))

    def told(*words: str) -> str:
        return said(started("--dry-run", "compose", *words, folder=folder))

    assert f"up: new built as it is: {BY_RUNC}" in told("up")
    assert f"up: new, web built as it is: {BY_RUNC}" in told("up", "--build")
    assert told("up", "--no-build") == ""
    assert told("run", "--no-build", "other", "--build") == ""
