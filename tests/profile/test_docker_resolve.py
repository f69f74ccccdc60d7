"""Docker's format resolved as the daemon resolves it."""

from typing import Any

import pytest

from shim.errors import ShimError
from shim.profile.docker import DEFAULT_CAPABILITIES, resolve
from shim.profile.document import read, resolved

ALLOW = "SCMP_ACT_ALLOW"


def _names(*rules: dict[str, Any], **container: Any) -> list[str]:
    """Return the names that remain of ``rules`` for a container."""
    described = {"capabilities": {"CAP_A"}, "machine": "x86_64", "kernel": (5, 10), **container}
    resolved = resolve({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(rules)}, **described)
    assert resolved is not None
    return [name for rule in resolved["syscalls"] for name in rule["names"]]


@pytest.mark.parametrize(
    ("key", "condition", "there"),
    [
        ("includes", {}, True),
        ("includes", None, True),
        ("includes", {"caps": ["CAP_A"]}, True),
        ("includes", {"caps": ["CAP_A", "CAP_B"]}, False),
        ("includes", {"caps": []}, True),
        ("includes", {"arches": ["amd64", "arm64"]}, True),
        ("includes", {"arches": ["arm64"]}, False),
        ("includes", {"arches": ["x86"]}, False),
        ("includes", {"minKernel": "5.10"}, True),
        ("includes", {"minKernel": "5.9"}, True),
        ("includes", {"minKernel": "5.11"}, False),
        ("includes", {"minKernel": "6.0"}, False),
        ("includes", {"minKernel": ""}, True),
        ("includes", {"arches": ["amd64"], "caps": ["CAP_B"]}, False),
        ("excludes", {"caps": ["CAP_A", "CAP_B"]}, False),
        ("excludes", {"caps": ["CAP_B"]}, True),
        ("excludes", {"arches": ["amd64"]}, False),
        ("excludes", {"arches": ["s390x"]}, True),
        ("excludes", {"minKernel": "5.10"}, False),
        ("excludes", {"minKernel": "5.11"}, True),
        ("excludes", {"minKernel": ""}, False),
    ],
)
def test_conditions_hold_as_for_the_daemon(key: str, condition: Any, there: bool) -> None:
    """A rule stays if all that it includes is there and nothing that it excludes."""
    assert _names({"names": ["call"], "action": ALLOW, key: condition}) == ["call"] * there


def test_an_exclusion_outweighs_an_inclusion() -> None:
    """A rule that is both included and excluded is left out."""
    both = {"caps": ["CAP_A"]}
    assert _names({"names": ["x"], "action": ALLOW, "includes": both, "excludes": both}) == []


def test_the_architectures_are_those_of_the_machine() -> None:
    """Of archMap the machine's own entry is taken, with its sub-architectures."""
    mapped = [
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_S390X", "subArchitectures": None},
    ]
    found = {}
    for machine in ("x86_64", "aarch64", "s390x", "riscv64"):
        profile = {"defaultAction": ALLOW, "archMap": mapped}
        resolved = resolve(profile, capabilities=(), machine=machine, kernel=(6, 1))
        assert resolved is not None
        found[machine] = [name.removeprefix("SCMP_ARCH_") for name in resolved["architectures"]]
    expected = {"x86_64": ["X86_64", "X86"], "aarch64": ["AARCH64", "ARM"]}
    assert found == {**expected, "s390x": ["S390X"], "riscv64": []}


def test_what_a_runtime_reads_is_kept_and_the_rest_is_not() -> None:
    """Errno values, flags, arguments and the deprecated single name reach the flat rules."""
    args = [{"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {"name": "one", "names": [], "action": ALLOW, "comment": "why", "args": args},
            {"names": ["two"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": None},
        ],
    }
    assert resolve(profile, capabilities=(), machine="x86_64", kernel=(6, 1)) == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "architectures": [],
        "syscalls": [
            {"names": ["one"], "action": ALLOW, "args": args},
            {"names": ["two"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
        ],
    }


def test_podmans_errno_names_outdo_numbers() -> None:
    """``errno`` and ``defaultErrno``, which Podman writes, give the errno by name."""
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrno": "ENOSYS",
        "defaultErrnoRet": 1,
        "syscalls": [{"names": ["x"], "action": "SCMP_ACT_ERRNO", "errno": "EPERM"}],
    }
    resolved = resolve(profile, capabilities=(), machine="x86_64", kernel=(6, 1))
    assert resolved is not None
    assert (resolved["defaultErrnoRet"], resolved["syscalls"][0]["errnoRet"]) == (38, 1)


def test_a_profile_without_rules_and_default_is_none() -> None:
    """What the daemon takes for a profile that is switched off gives no filter."""
    assert resolve({"syscalls": []}, capabilities=(), machine="x86_64", kernel=(6, 1)) is None


@pytest.mark.parametrize(
    ("profile", "subject"),
    [
        ({"architectures": ["SCMP_ARCH_X86"], "archMap": [{}]}, "/archMap"),
        ({"syscalls": [{"name": "a", "names": ["b"]}]}, "/syscalls/0"),
        ({"syscalls": [{"names": "a"}]}, "/syscalls/0/names"),
        ({"syscalls": [5]}, "/syscalls/0"),
        ({"syscalls": [{"includes": {"minKernel": "5"}}]}, "/syscalls/0/includes/minKernel"),
        ({"syscalls": [{"includes": {"minKernel": "5.300"}}]}, "/syscalls/0/includes/minKernel"),
        ({"syscalls": [{"names": ["a"], "errno": "EWHAT"}]}, "/syscalls/0/errno"),
    ],
)
def test_what_the_daemon_refuses_is_refused(profile: dict[str, Any], subject: str) -> None:
    """The error names the place in the profile."""
    whole = {"defaultAction": ALLOW, **profile}
    with pytest.raises(ShimError) as caught:
        resolve(whole, capabilities=(), machine="x86_64", kernel=(6, 1))
    assert caught.value.subject.startswith(subject)


def test_an_unheard_of_machine_is_refused() -> None:
    """Where Docker does not run nothing is guessed."""
    with pytest.raises(ShimError, match="pdp11"):
        resolve({"defaultAction": ALLOW}, capabilities=(), machine="pdp11", kernel=(6, 1))


def test_only_dockers_format_is_resolved() -> None:
    """A flat profile comes out as it went in, conditions or not."""
    text = b'{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}'
    document = read(text, "p.json")
    there = resolved(document, capabilities=DEFAULT_CAPABILITIES, machine="x86_64", kernel=(6, 1))
    assert there == {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}
