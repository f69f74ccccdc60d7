"""Containers of real engines, found by their cgroups and named by whoever started them."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from support import engines, image
from support.checkout import CHECKOUT

CALL = "test-syscall-400"


def scanned(engine: engines.Engine, *words: str, code: int = 1, docker: str = "") -> Any:
    """Scan from the engine's view of the host; give the JSON document."""
    command = [*engine.host.enter, "env", f"PYTHONPATH={CHECKOUT}", f"DOCKER_HOST=unix://{docker}"]
    command += [sys.executable, "-P", "-m", "shim", "scan", "--json", "--syscall", CALL, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def started(engine: engines.Engine, name: str, *options: str) -> str:
    """Start a container that sleeps; give its id."""
    words = ["run", "--detach", "--name", name, *options]
    return engine(*engine.run_args(*words), image.NAME, "/bin/sleep", "600").stdout.split()[-1]


def outcome(document: Any) -> dict[str, tuple[str, str]]:
    """Return the outlook and the reason of each container, by name."""
    found = {}
    for group in document["groups"]:
        told = {
            (each["calls"][CALL]["outcome"], each["calls"][CALL]["why"])
            for each in group["processes"]
        }
        [found[group["name"]]] = told
    return found


def test_docker(tmp_path_factory: pytest.TempPathFactory) -> None:
    """By the default profile, without one, by one of its own; asked by name and by id."""
    allowing = tmp_path_factory.mktemp("profile") / "allowing.json"
    allowing.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}))
    with engines.dockerd() as docker:
        host = str(docker.socket)
        ident = started(docker, "web")
        started(docker, "open", "--security-opt", "seccomp=unconfined")
        started(docker, "own", "--security-opt", f"seccomp={allowing}")
        names = ("web", "open", "own")
        found = [each for each in scanned(docker, docker=host)["groups"] if each["name"] in names]
        assert {each["name"]: each["profile"] for each in found} == {
            "web": "the daemon's default",
            "open": "unconfined",
            "own": "its own",
        }
        assert {each["image"] for each in found} == {image.NAME}
        assert {each["engine"] for each in found} == {"docker"}
        told = outcome({"groups": found})
        assert told["web"] == ("dies", "ERRNO(1) by the filter of its container")
        assert told["open"] == ("safe", "unconfined: it has no filter")
        assert told["own"][0] == "safe"
        for wanted in ("web", ident, ident[:8]):
            [only] = scanned(docker, "--container", wanted, docker=host)["groups"]
            assert only["id"] == ident
            assert only["processes"][0]["pid_inside"] == 1
        assert scanned(docker, "--container", "open", code=0, docker=host)["processes_at_risk"] == 0
        # An engine that says nothing leaves ids, and the same outlook.
        silent = scanned(docker, "--container", ident[:12], docker="/nowhere")
        assert silent["groups"][0]["name"] == ident[:12]
        assert silent["processes_at_risk"] == 1


def test_podman() -> None:
    """Its name by conmon, its image by the storage beside it."""
    with engines.podman() as podman:
        ident = started(podman, "db")
        document = scanned(podman, "--container", "db")
        [only] = document["groups"]
        assert (only["engine"], only["id"]) == ("podman", ident)
        assert re.search(rf"(^|/){image.NAME}(:latest)?$", only["image"])
        assert outcome(document)["db"] == ("dies", "ERRNO(1) by the filter of its container")
        podman("rm", "--force", "--time", "0", "db")


def test_rootless_podman() -> None:
    """A user's container without a cgroup of its own is known by its conmon, as that user's."""
    with engines.podman("crun", rootless=True) as podman:
        ident = started(podman, "mine")
        [only] = scanned(podman, "--container", "mine")["groups"]
        assert (only["engine"], only["id"], only["user"]) == ("podman", ident, engines.USER)
        assert outcome({"groups": [only]})["mine"][0] == "dies"
        assert only["processes"][0]["calls"][CALL]["owner"] == "runtime"
        podman("rm", "--force", "--time", "0", "mine")
