"""The built-in profiles are those that real daemons of these versions apply: proven."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engines.capture import Capture
from shim.bpf.equivalence import difference
from shim.engines.docker import builtin
from shim.profile.compile import program
from shim.profile.docker import DEFAULT_CAPABILITIES, resolve
from support import engines, image
from vm import stacks

# The capabilities that rules ask for, alone and together.
CAPABILITIES = (
    (),
    ("--cap-drop=ALL",),
    ("--cap-add=SYS_ADMIN",),
    ("--cap-add=SYS_PTRACE", "--cap-add=SYSLOG"),
    ("--cap-add=SYS_NICE", "--cap-add=SYS_TIME", "--cap-add=SYS_RAWIO"),
    ("--cap-add=DAC_READ_SEARCH", "--cap-add=SYS_BOOT", "--cap-add=SYS_MODULE"),
    ("--cap-add=SYS_PACCT", "--cap-add=SYS_TTY_CONFIG", "--cap-drop=SYS_CHROOT"),
)
# Docker 20.10 knows neither.
NEWER = (*CAPABILITIES, ("--cap-add=BPF",), ("--cap-add=PERFMON",))


def _rules(seccomp: dict[str, Any]) -> set[tuple[str, str]]:
    """Return every name with what its rule says, free of order and of members that say nothing."""
    return {
        (name, json.dumps({k: v for k, v in rule.items() if v and k != "names"}, sort_keys=True))
        for rule in seccomp["syscalls"]
        for name in rule["names"]
    }


def _handed(docker: engines.Docker, capture: Capture, options: Sequence[str]) -> dict[str, Any]:
    """Run a container and give the config.json that the daemon handed its runtime."""
    run = ("run", "--rm", "--network=none", "--runtime=capture", *options, image.NAME, "true")
    # Where this machine lacks a capability itself, runc fails with what it was handed.
    docker(*run, code=0 if "--privileged" not in options else None)
    [document] = capture.taken()
    return document


def _resolved(version: str, capabilities: Sequence[str]) -> dict[str, Any]:
    document, reason = builtin.profile(version)
    assert document is not None, reason
    kernel = os.uname().release.split(".")
    flat = resolve(
        document.tree,
        capabilities=capabilities,
        machine=os.uname().machine,
        kernel=(int(kernel[0]), int(kernel[1])),
    )
    assert flat is not None
    return flat


def _compare(release: str, capabilities: Sequence[Sequence[str]], tree: Path | None = None) -> None:
    """Prove for every set of capabilities that the daemon's filter and ours are the same."""
    with engines.dockerd(tree=tree) as docker:
        capture = Capture(docker.folder)
        docker.configure({"runtimes": {"capture": {"path": str(capture.program)}}})
        docker.reload()
        version = docker("version", "--format", "{{.Server.Version}}").stdout.strip()
        assert version.startswith(release)
        seen = set()
        for options in capabilities:
            document = _handed(docker, capture, options)
            theirs = document["linux"]["seccomp"]
            bounding = document["process"]["capabilities"].get("bounding", [])
            ours = _resolved(version, bounding)
            assert _rules(ours) == _rules(theirs), options
            found = difference(program(theirs), program(ours))
            assert found.equal, (options, found)
            seen.add(frozenset(bounding))
            if not options:
                assert frozenset(bounding) == DEFAULT_CAPABILITIES
        assert len(seen) == len(capabilities)
        assert "seccomp" not in _handed(docker, capture, ["--privileged"])["linux"]


def test_of_docker_20_10() -> None:
    """The profile resolved for 20.10 is what this machine's dockerd hands its runtime."""
    _compare("20.10.", CAPABILITIES)


@pytest.mark.vm
@pytest.mark.parametrize(("name", "release"), [("trixie", "26.1."), ("sid", "28.5.")])
def test_of_newer_daemons(name: str, release: str) -> None:
    """So it is for the daemons of newer Debians, which the laboratory unpacks."""
    [stack] = [each for each in stacks.STACKS if each.name == name]
    _compare(release, NEWER, stacks.ready(stack).root)
