"""profiles/docker/default.json: well-formed, and written compactly."""

import json
from typing import Any

import pyseccomp

from shim import catalog
from shim.data import directory

PATH = directory("profiles") / "docker" / "default.json"


def _profile() -> Any:
    return json.loads(PATH.read_bytes())


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
