"""Containers under profiles that change: which are tried, what runtimes make of them."""

import json
import time
from pathlib import Path

import pytest

from shim.catalog import kernel_injected
from shim.engines import oci
from shim.engines.demonstration import docker_default
from shim.health.runtimes import observe
from shim.health.trials import MOST, chosen
from shim.transaction.staged import Change
from shim.transaction.store import checksum
from support import need
from support.leftovers import containers, stays
from support.profiles import ALLOW, DOCKER, ERRNO
from support.resources import HEAD

RUNTIMES = ("runc", "crun")
LOOK = "seccomp-shim-look-"
DENYING = {"defaultAction": ERRNO, "syscalls": [{"names": ["read"], "action": ALLOW}]}
RESOURCE = f"""{HEAD}  defaultAction: {ERRNO}
  syscalls:
  - names: [read]
    action: {ALLOW}
"""


def _alive(pid: str) -> bool:
    """Tell whether a process is more than one that nobody has waited for yet."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


def _changed(path: Path, before: str, after: str) -> tuple[Change, dict[str, bytes]]:
    path.write_text(before)
    old, new = checksum(before.encode()), checksum(after.encode())
    return Change(str(path), old, new), {new: after.encode()}


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_filter_of_a_live_container_is_judged(name: str) -> None:
    """Docker's default denies each call, without a profile all are let through; nothing is left."""
    need.root()
    runtime = need.program(name)
    before = containers(LOOK)
    denied = observe(runtime, docker_default(), seconds=20)
    assert denied.started, denied.reason
    assert denied.verdicts == dict.fromkeys(kernel_injected(), "ERRNO(1)")
    free = observe(runtime, None, seconds=20)
    assert free.verdicts == dict.fromkeys(kernel_injected(), "ALLOW")
    assert not stays(containers(LOOK) - before)


@pytest.mark.parametrize("name", RUNTIMES)
def test_why_no_container_starts_is_one_line(name: str) -> None:
    """A profile that the runtime refuses is told in its own words, without passing names."""
    need.root()
    runtime = need.program(name)
    before = containers(LOOK)
    refused = observe(runtime, {"defaultAction": "SCMP_ACT_NONE"}, seconds=20)
    assert (refused.started, refused.verdicts) == (False, {})
    assert "SCMP_ACT_NONE" in refused.reason
    assert "\n" not in refused.reason
    assert "seccomp-shim-look" not in refused.reason
    again = observe(runtime, {"defaultAction": "SCMP_ACT_NONE"}, seconds=20)
    assert again.reason == refused.reason
    assert not observe(runtime, DENYING, seconds=20).started
    assert not stays(containers(LOOK) - before)


def test_a_runtime_that_hangs_is_killed(tmp_path: Path) -> None:
    """It and what it has started are gone, at every time that it was called."""
    need.root()
    before = containers(LOOK)
    hanging = tmp_path / "runc"
    log = tmp_path / "pids"
    hanging.write_text(f"#!/bin/sh\necho $$ >>{log}\nsleep 600 &\necho $! >>{log}\nwait\n")
    hanging.chmod(0o755)
    seen = observe(str(hanging), None, seconds=1)
    assert (seen.started, seen.reason) == (False, "it takes too long")
    pids = log.read_text().split()
    assert len(pids) == 4  # run and delete
    deadline = time.monotonic() + 20  # on a busy machine one that was killed takes its time to die
    while any(map(_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not stays(containers(LOOK) - before)


def test_no_runtime_is_no_container(tmp_path: Path) -> None:
    """A runtime that cannot even be run is told like any other failure."""
    seen = observe(str(tmp_path / "runc"), None, seconds=20)
    assert not seen.started
    assert "No such file" in seen.reason


def test_each_different_profile_is_tried_once(tmp_path: Path) -> None:
    """Files with equal profiles share a container; beyond a few, profiles are only counted."""
    after = json.dumps({**DENYING, "syscalls": [{"names": ["read", "uretprobe"], "action": ALLOW}]})
    changes: list[Change] = []
    contents: dict[str, bytes] = {}
    for number in range(3):
        change, more = _changed(tmp_path / f"{number}", json.dumps(DENYING) + " " * number, after)
        changes.append(change)
        contents |= more
    [trial], others = chosen(changes, contents)
    assert others == 0
    assert (trial.file, trial.name) == (changes[0].path, changes[0].path)
    assert trial.before == DENYING
    assert trial.after == json.loads(after)
    assert (set(trial.allowed), set(trial.lost)) == ({"uretprobe"}, set())

    for number in range(MOST + 1):
        more_calls = {"names": [f"call{number}"], "action": ALLOW}
        before = {**DENYING, "syscalls": [*DENYING["syscalls"], more_calls]}
        change, more = _changed(tmp_path / f"more{number}", json.dumps(before), after)
        changes.append(change)
        contents |= more
    trials, others = chosen(changes, contents)
    assert (len(trials), others) == (MOST, 2)


def test_profiles_of_all_formats_are_flattened(tmp_path: Path) -> None:
    """Docker's rules, a resource's and those of a config.json become what a runtime gets."""
    rule = {"names": ["uretprobe"], "action": ALLOW}
    docker = {**DOCKER, "syscalls": [*DOCKER["syscalls"], rule]}
    allowing = RESOURCE.replace("[read]", "[read, uretprobe]")
    config = oci.bundle(tmp_path, DENYING, []) / "config.json"
    more = json.loads(config.read_text())
    more["linux"]["seccomp"]["syscalls"][0]["names"].append("uretprobe")
    for name, before, after in (
        ("docker", json.dumps(DOCKER), json.dumps(docker)),
        ("resource", RESOURCE, allowing),
        ("config", config.read_text(), json.dumps(more)),
    ):
        change, contents = _changed(tmp_path / name, before, after)
        [trial], others = chosen([change], contents)
        assert others == 0
        assert trial.name.startswith(str(tmp_path / name))
        assert trial.before is not None
        assert trial.after is not None
        assert "archMap" not in trial.after
        assert trial.after["syscalls"] != trial.before["syscalls"]
        assert trial.allowed == {"uretprobe"}
        change, contents = _changed(tmp_path / name, after, before)
        [back], _ = chosen([change], contents)
        assert (set(back.allowed), set(back.lost)) == (set(), {"uretprobe"})


def test_a_profile_that_cannot_be_flattened_is_counted(tmp_path: Path) -> None:
    """What Docker would refuse gets no container."""
    wrong = {**DOCKER, "architectures": ["SCMP_ARCH_X86_64"]}
    change, contents = _changed(tmp_path / "wrong", json.dumps(DOCKER), json.dumps(wrong))
    assert chosen([change], contents) == ([], 1)
