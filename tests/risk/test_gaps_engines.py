"""The verbs gaps and explain, asked of a container of a real engine by its name and its id."""

import json
import os
import subprocess
import sys
from typing import Any

from support import engines, image, need
from support.checkout import CHECKOUT


def _asked(docker: engines.Docker, *words: str) -> "subprocess.CompletedProcess[str]":
    given = {"PYTHONPATH": str(CHECKOUT), "DOCKER_HOST": f"unix://{docker.socket}"}
    command = [sys.executable, "-P", "-m", "shim", *words]
    return subprocess.run(
        command, env={**os.environ, **given}, capture_output=True, text=True, check=False
    )


def test_a_running_container_tells_by_its_filter() -> None:
    """What gaps says of its calls is what they end with, and nothing is run in it."""
    need.root()
    with engines.dockerd() as docker:
        words = docker.run_args("run", "--detach", "--name", "web", image.NAME, "/bin/sleep", "600")
        ident = docker(*words).stdout.split()[-1]
        before = docker("top", "web", "-o", "pid,args").stdout
        documents: list[dict[str, Any]] = []
        for name in ("web", ident[:12]):
            done = _asked(docker, "gaps", "--json", "--container", name)
            assert done.returncode == 0, done.stderr
            documents.append(json.loads(done.stdout))
        assert documents[0]["calls"] == documents[1]["calls"]
        assert docker("top", "web", "-o", "pid,args").stdout == before
        refused = [row["number"] for row in documents[0]["calls"] if row["answers"] == ["EPERM"]]
        some = [number for number in refused if number > 424][:4]
        ends = docker.calls("exec", "web", image.CALLER, *map(str, some))
        assert some
        assert ends == dict.fromkeys(some, 1)
        done = _asked(docker, "explain", str(some[0]), "--container", "web")
        assert done.returncode == 1
        assert "EPERM: the filter that the process has" in done.stdout
