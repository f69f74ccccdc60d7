"""What is refused in containers of a real engine, while they run and while they come and go."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from support import engines, image, need
from support.checkout import CHECKOUT

CALLS = ("415", "415", "416")


@pytest.fixture(autouse=True)
def _machine() -> None:
    need.root()
    need.kernel(os.path.exists("/sys/kernel/btf/vmlinux"), "this kernel has no BTF")


def watching(docker: engines.Docker, *words: str) -> "subprocess.Popen[str]":
    """Start the verb; it asks this daemon for names."""
    given = {"PYTHONPATH": str(CHECKOUT), "DOCKER_HOST": f"unix://{docker.socket}"}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "shim", "denials", "--json", *words],
        env={**os.environ, **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(verb: "subprocess.Popen[str]") -> set[tuple[str, str, str, int]]:
    """Wait for the end; give program, call, group and count of the calls that this file makes."""
    out, err = verb.communicate(timeout=120)
    assert verb.returncode in (0, 1), err
    found: dict[str, Any] = json.loads(out)
    assert found["lost"] == 0
    return {
        (each["program"], each["call"], each["group"], each["count"])
        for each in found["denials"]
        if each["call"] in CALLS and each["errno"] == "EPERM"
    }


def run(docker: engines.Docker, *words: str, calls: Sequence[str] = CALLS) -> list[str]:
    """Return the words that run the image's caller in a new container."""
    return docker.run_args("run", "--rm", *words, image.NAME, image.CALLER, *calls)


def test_a_container_that_runs_and_what_joins_it() -> None:
    """By name and by id: what exec runs in it counts, though it is gone at once; others do not."""
    caller = os.path.basename(image.CALLER)
    with engines.dockerd() as docker:
        words = docker.run_args("run", "--detach", "--name", "web", image.NAME, "/bin/sleep", "600")
        ident = docker(*words).stdout.split()[-1]
        for wanted in ("web", ident[:12]):
            verb = watching(docker, "--container", wanted)
            assert verb.stderr is not None
            assert verb.stderr.readline().startswith("watching what is refused to docker web, ")
            docker(*run(docker))
            assert docker.calls("exec", "web", image.CALLER, *CALLS) == {415: 1, 416: 1}
            verb.terminate()
            assert told(verb) == {
                (caller, "415", "docker web", 2),
                (caller, "416", "docker web", 1),
            }


# Whose container will be new is not known before: calls of the whole machine take room, and another
# worker's tests make more of them than there is room for.
@pytest.mark.alone
def test_what_a_command_starts_elsewhere() -> None:
    """A client only asks its daemon: the container that is new is told all the same."""
    caller = os.path.basename(image.CALLER)
    with engines.dockerd() as docker:
        verb = watching(docker, "--", *docker.command(*run(docker, "--name", "new")))
        found = told(verb)
        assert {(name, call, count) for name, call, _, count in found} == {
            (caller, "415", 2),
            (caller, "416", 1),
        }
