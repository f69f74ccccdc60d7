"""The verb prove and real engines: a container without the shim beside one with it.

This kernel kills nobody, so what the two differ in is read from their filters: whether a test
syscall, which the shim of the proof is told of, is let through.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest

from shim.risk import prove
from support import engines, installed, need
from support.checkout import CHECKOUT
from support.containers import TEST_SYSCALL
from support.leftovers import containers, stays

SCHEMA = json.loads((CHECKOUT / "docs/prove.schema.json").read_text())
# The verb with a test syscall in its own wrapper, whose verdicts go to standard error.
_VERB = f"""
import functools, sys, time
from shim import cli
from shim.bpf import program
from shim.bpf.outcomes import names, outcomes
from shim.engines import demonstration
from shim.host.ptrace import installed_filters
from shim.risk import prove
probed = prove.probed
def told(pid, code):
    for _ in range(500):
        try:
            filters = installed_filters(pid)
            break
        except PermissionError:  # poststart looks at it now
            time.sleep(0.01)
    said = [names(outcomes(program.decode(each), {TEST_SYSCALL})) for each in filters]
    print(*said, file=sys.stderr)
    return probed(pid, code)
prove.probed = told
demonstration.wrapper = functools.partial(demonstration.wrapper, test_syscall={TEST_SYSCALL})
sys.exit(cli.main(["prove", "--json", "--engine", *sys.argv[1:]]))
"""


@pytest.fixture(autouse=True)
def _probes() -> None:
    need.harmless_probes()


def proven(
    engine: engines.Engine, environment: Mapping[str, str], name: str, status: int = 0
) -> tuple[dict[str, Any], list[str]]:
    """Prove with an engine in its view of the host; return the document, and the two verdicts."""
    given = [f"{key}={value}" for key, value in environment.items()]
    command = [*engine.host.enter, "env", f"PYTHONPATH={CHECKOUT}", *given]
    done = subprocess.run(
        [*command, sys.executable, "-P", "-c", _VERB, name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    return document, done.stderr.splitlines()


def counted(document: Mapping[str, Any], *sides: str) -> bool:
    """Tell whether each of the sides lived with enough hits."""
    return all(document[each]["lived"] and document[each]["hits"] >= prove.HITS for each in sides)


def test_docker_side_by_side() -> None:
    """One column says what is missing until it is registered; then each has its own runtime."""
    with engines.dockerd() as docker:
        where = {"DOCKER_HOST": f"unix://{docker.socket}"}
        images = docker("images", "--quiet").stdout
        document, _ = proven(docker, where, "docker", status=3)
        assert counted(document, "without")
        assert document["with"] == {"why": "not registered: seccomp-shim install docker"}
        installed.install(docker.host)
        for words in ((), ("--default",)):
            installed.verb(docker.host, "install", "docker", *words)
            document, verdicts = proven(docker, where, "docker")
            assert counted(document, "without", "with")
            assert verdicts == ["ERRNO(1)", "ALLOW"]
            assert (document["without"]["by"], document["with"]["by"]) == ("runc", "seccomp-shim")
        assert docker("ps", "--all", "--quiet").stdout == ""
        assert docker("images", "--quiet").stdout == images


def test_podman_side_by_side() -> None:
    """A wrapper made for the proof stands in front of podman's own runtime."""
    with engines.podman(engine_conf='runtime = "runc"') as podman:
        document, verdicts = proven(podman, {"CONTAINERS_CONF": str(podman.conf)}, "podman")
        assert counted(document, "without", "with")
        assert verdicts == ["ERRNO(1)", "ALLOW"]
        assert document["with"]["by"] == f"seccomp-shim in front of {document['without']['by']}"


@pytest.mark.parametrize("way", ["runtime", "hooks"])
def test_podman_as_it_is_registered(way: str) -> None:
    """What is registered is the side with the shim, and is kept out of the other one."""
    with engines.podman(engine_conf='runtime = "runc"') as podman:
        installed.install(podman.host)
        podman.host.run(f"cp {podman.conf} /etc/containers/containers.conf")
        installed.verb(podman.host, "install", "podman", "--way", way)
        document, verdicts = proven(podman, {}, "podman")
        assert counted(document, "without", "with")
        assert verdicts == ["ERRNO(1)", "ALLOW"]
        assert "seccomp-shim" not in document["without"]["by"]
        assert ("seccomp-shim" in document["with"]["by"]) == (way == "runtime")


def test_containerd_side_by_side() -> None:
    """Its client is given the wrapper as its binary; namespaces and their cgroups are removed."""
    before = containers("seccomp-shim-look-")
    with engines.containerd() as containerd:
        where = {"CONTAINERD_ADDRESS": f"{containerd.folder}/sock"}
        document, verdicts = proven(containerd, where, "containerd")
        assert counted(document, "without", "with")
        assert verdicts == ["ERRNO(1)", "ALLOW"]
        assert "seccomp-shim" not in containerd("namespaces", "list").stdout
    assert not stays(containers("seccomp-shim-look-") - before)
