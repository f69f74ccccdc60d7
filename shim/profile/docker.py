"""Docker's profile format: rules under conditions, which the daemon resolves for each container.

Read for every container on x86-64 at once (``evaluate``), resolved for one of them (``resolve``).
After moby/profiles seccomp/seccomp_linux.go setupSeccomp(), Podman's copy of it in
containers/common and, for the keys ``errno`` and ``defaultErrno``, the latter alone
(pkg/seccomp/seccomp_linux.go; CRI-O uses it too).
"""

import errno
from collections.abc import Collection
from typing import Any, NamedTuple

from shim.errors import ShimError
from shim.host.runtimes import numbers
from shim.profile import evaluate as core
from shim.profile.validate import kernel as check_kernel

ARCHITECTURE = "amd64"

# What a container has to which nobody added or denied any (moby daemon/pkg/oci/caps/defaults.go).
DEFAULT_CAPABILITIES = frozenset(
    (
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    )
)

# uname's machine: the name in ``includes.arches``, and the architecture that archMap lists.
MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "i386": ("x86", "SCMP_ARCH_X86"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}

_COPIED = ("defaultAction", "defaultErrnoRet", "flags", "listenerPath", "listenerMetadata")
_COPIED_OF_RULE = ("action", "errnoRet", "args")


class Conditions(NamedTuple):
    """What ``includes`` or ``excludes`` of a rule asks for; ``kernel`` is the least one, if any."""

    arches: list[str]
    caps: list[str]
    kernel: tuple[int, ...] | None


def evaluate(profile: dict[str, object], name: str) -> tuple[str, str]:
    """Return a Docker profile's verdict on ``name``, and its reason, as ``shim.profile.evaluate``.

    ``conditional`` also stands for a rule that asks for capabilities or a kernel version:
    containers without them still lack the call. ``explicit-deny`` stands for a denial under any
    condition that can hold on x86-64.
    """
    return core.verdict(profile, name, architectures(profile), names_of, applies)


def architectures(profile: dict[str, object]) -> list[str]:
    """Return every architecture that the profile mentions; empty: the native one."""
    listed = [*core.strings(profile, "architectures", "")]
    for architecture, companions in _arch_map(profile):
        listed += [architecture, *companions]
    return listed


def architectures_on(profile: dict[str, object], native: str) -> list[str]:
    """Return the architectures that the daemon lists for a container on ``native``."""
    for architecture, companions in _arch_map(profile):
        if architecture == native:
            return [native, *companions]
    return core.strings(profile, "architectures", "")


def _arch_map(profile: dict[str, object]) -> list[tuple[str, list[str]]]:
    """Return the rows of ``archMap``: an architecture and those that are filtered beside it."""
    rows = []
    mapped = core.sequence(profile, "archMap", "")
    if mapped and core.strings(profile, "architectures", ""):
        raise ShimError(
            "has both archMap and architectures, which Docker refuses", subject="/archMap"
        )
    for index, entry in enumerate(mapped):
        pointer = f"/archMap/{index}"
        row = core.table(entry, pointer)
        companions = core.strings(row, "subArchitectures", pointer)
        rows.append((str(row.get("architecture")), companions))
    return rows


def names_of(rule: dict[str, object], pointer: str) -> list[str]:
    """Return the names of a rule, the deprecated single ``name`` included."""
    names = core.strings(rule, "names", pointer)
    name = rule.get("name")
    if not name:
        return names
    if not isinstance(name, str):
        raise ShimError("must be a string", subject=f"{pointer}/name")
    if names:
        raise ShimError("has both name and names, which Docker refuses", subject=f"{pointer}/name")
    return [name]


def applies(rule: dict[str, object], pointer: str) -> str:
    """Tell whether the rule holds ALWAYS, SOMETIMES or NEVER for containers on x86-64."""
    includes, excludes = (_conditions(rule, key, pointer) for key in ("includes", "excludes"))
    if (includes.arches and ARCHITECTURE not in includes.arches) or ARCHITECTURE in excludes.arches:
        return core.NEVER
    limits = any(each.caps or each.kernel for each in (includes, excludes))
    return core.SOMETIMES if limits else core.ALWAYS


def _conditions(rule: dict[str, object], key: str, pointer: str) -> Conditions:
    here = f"{pointer}/{key}"
    value = rule.get(key)
    where = {} if value is None else core.table(value, here)
    arches, caps = (core.strings(where, each, here) for each in ("arches", "caps"))
    least = where.get("minKernel")
    if least:
        check_kernel(least, f"{here}/minKernel")
    return Conditions(arches, caps, None if least is None else numbers(str(least)))


def resolve(
    profile: dict[str, Any],
    *,
    capabilities: Collection[str],
    machine: str,
    kernel: tuple[int, int],
) -> dict[str, Any] | None:
    """Return the ``linux.seccomp`` that the daemon would hand to its runtime; None: no filter.

    ``capabilities`` are the container's bounding set (``CAP_...``), ``machine`` is uname's.
    ShimError where the daemon would refuse the profile, or knows no such machine.
    """
    scmp_arch = architecture(machine)
    arch = MACHINES[machine][0]
    rules = core.sequence(profile, "syscalls", "")
    if not profile.get("defaultAction") and not rules:
        return None
    flat = {key: profile[key] for key in _COPIED if profile.get(key) is not None}
    if profile.get("defaultErrno"):
        flat["defaultErrnoRet"] = _errno(profile, "defaultErrno", "")
    flat["architectures"] = architectures_on(profile, scmp_arch)
    pointers = [f"/syscalls/{index}" for index in range(len(rules))]
    tables = [(core.table(rule, at), at) for rule, at in zip(rules, pointers, strict=True)]
    flat["syscalls"] = [
        _flattened_rule(rule, pointer)
        for rule, pointer in tables
        if _holds(rule, pointer, arch, capabilities, kernel)
    ]
    return flat


def architecture(machine: str) -> str:
    """Return what profiles call the architecture of ``machine`` (uname's); ShimError: unknown."""
    if machine not in MACHINES:
        raise ShimError("no Docker profile is defined for this machine", subject=machine)
    return MACHINES[machine][1]


def _holds(
    rule: dict[str, Any],
    pointer: str,
    arch: str,
    capabilities: Collection[str],
    kernel: tuple[int, int],
) -> bool:
    """Tell whether nothing excludes the rule and everything that it includes is there."""
    excludes, includes = (_conditions(rule, key, pointer) for key in ("excludes", "includes"))
    if arch in excludes.arches or any(cap in capabilities for cap in excludes.caps):
        return False
    if excludes.kernel is not None and kernel >= excludes.kernel:
        return False
    if includes.arches and arch not in includes.arches:
        return False
    there = all(cap in capabilities for cap in includes.caps)
    return there and (includes.kernel is None or kernel >= includes.kernel)


def lacks(
    rule: dict[str, Any],
    pointer: str,
    *,
    capabilities: Collection[str],
    machine: str,
    kernel: tuple[int, int],
) -> str:
    """Say why the rule does not hold for a container, as of ``resolve``; empty: it does."""
    arch = MACHINES[machine][0] if machine in MACHINES else ""
    if _holds(rule, pointer, arch, capabilities, kernel):
        return ""
    excludes, includes = (_conditions(rule, key, pointer) for key in ("excludes", "includes"))
    missing = [cap for cap in includes.caps if cap not in capabilities]
    if missing:
        return f"needs {' and '.join(missing)}"
    if includes.arches and arch not in includes.arches:
        return f"is for {', '.join(includes.arches)}"
    if includes.kernel is not None and kernel < includes.kernel:
        return f"needs Linux {'.'.join(map(str, includes.kernel))}"
    if held := [cap for cap in excludes.caps if cap in capabilities]:
        return f"does not hold with {' and '.join(held)}"
    return "does not hold for this container"


def _flattened_rule(rule: dict[str, Any], pointer: str) -> dict[str, Any]:
    flat: dict[str, Any] = {"names": names_of(rule, pointer)}
    flat |= {key: rule[key] for key in _COPIED_OF_RULE if rule.get(key) is not None}
    if rule.get("errno"):
        flat["errnoRet"] = _errno(rule, "errno", pointer)
    return flat


def _errno(where: dict[str, Any], key: str, pointer: str) -> int:
    value = getattr(errno, str(where[key]), None)
    if not isinstance(value, int):
        raise ShimError(f"unknown errno {where[key]}", subject=f"{pointer}/{key}")
    return value
