"""profiles/docker/default.json: well-formed, and what a real daemon of that age applies."""

import json
import os
from pathlib import Path
from typing import Any

import pyseccomp
import pytest

from shim import catalog
from shim.data import directory
from support import need

PATH = directory("profiles") / "docker" / "default.json"


def _profile(path: Path = PATH) -> Any:
    return json.loads(path.read_bytes())


def _meaning(profile: Any) -> Any:
    """Give what a profile says, free of order, grouping, comments and empty members."""
    rules = {
        (name, json.dumps({k: v for k, v in rule.items() if v and k not in {"names", "comment"}}))
        for rule in profile["syscalls"]
        for name in rule["names"]
    }
    rules = {(name, json.dumps(json.loads(rest), sort_keys=True)) for name, rest in rules}
    arches = {a["architecture"]: set(a["subArchitectures"] or ()) for a in profile["archMap"]}
    return rules, arches, profile["defaultAction"], profile["defaultErrnoRet"]


def test_written_compactly() -> None:
    """Names are sorted, and no two rules could be one."""
    rules = _profile()["syscalls"]
    assert all(rule["names"] == sorted(set(rule["names"])) for rule in rules)
    conditions = [json.dumps({**rule, "names": []}, sort_keys=True) for rule in rules]
    assert len(conditions) == len(set(conditions))


def test_every_name_is_a_system_call() -> None:
    """Each name is known to libseccomp or the catalogue on some architecture that it has."""
    arches = [getattr(pyseccomp.Arch, n) for n in dir(pyseccomp.Arch) if n.isupper()]
    arches = [a for a in arches if isinstance(a, int) and a]
    assert len(arches) > 5
    names = {name for rule in _profile()["syscalls"] for name in rule["names"]}
    unknown = {
        name
        for name in names - catalog.load().keys()
        if all(pyseccomp.resolve_syscall(arch, name) == -1 for arch in arches)
    }
    assert unknown == set()


def test_denies_the_kernel_injected_calls_by_default() -> None:
    """The profile does what kills containers: it has never heard of uretprobe and uprobe."""
    names = {name for rule in _profile()["syscalls"] for name in rule["names"]}
    assert not names & catalog.kernel_injected().keys()
    assert _profile()["defaultAction"] == "SCMP_ACT_ERRNO"


@pytest.mark.skipif("SHIM_REFERENCE" not in os.environ, reason="SHIM_REFERENCE names no folder")
def test_means_what_docker_publishes() -> None:
    """It says the same as the profile in Docker's source of that version."""
    reference = Path(os.environ["SHIM_REFERENCE"]) / "moby" / "v26.1.5.json"
    need.kernel(reference.exists(), f"{reference} is not there")
    assert _meaning(_profile()) == _meaning(_profile(reference))
