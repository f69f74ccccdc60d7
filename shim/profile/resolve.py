"""What the Docker daemon makes of its profile format: the flat OCI rules for one container.

After moby/profiles seccomp/seccomp_linux.go setupSeccomp() and, for the keys ``errno`` and
``defaultErrno``, containers/common pkg/seccomp/seccomp_linux.go (Podman, CRI-O).
"""

import errno
from collections.abc import Collection
from typing import Any

from shim.errors import ShimError
from shim.profile.docker import names_of
from shim.profile.document import DOCKER, Document
from shim.profile.evaluate import sequence, strings, table

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
_ARCHITECTURES = {
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


def resolve(
    profile: dict[str, Any],
    *,
    capabilities: Collection[str],
    machine: str,
    kernel: tuple[int, int],
) -> dict[str, Any] | None:
    """Give the ``linux.seccomp`` that the daemon would hand to its runtime, or None for no filter.

    ``capabilities`` are the container's bounding set (``CAP_...``), ``machine`` is uname's.
    ShimError where the daemon would refuse the profile, or knows no such machine.
    """
    if machine not in _ARCHITECTURES:
        raise ShimError("no Docker profile is defined for this machine", subject=machine)
    arch, scmp_arch = _ARCHITECTURES[machine]
    rules = sequence(profile, "syscalls", "")
    if not profile.get("defaultAction") and not rules:
        return None
    flat = {key: profile[key] for key in _COPIED if profile.get(key) is not None}
    if profile.get("defaultErrno"):
        flat["defaultErrnoRet"] = _errno(profile, "defaultErrno", "")
    flat["architectures"] = _architectures(profile, scmp_arch)
    flat["syscalls"] = [
        _flat(table(rule, ""), f"/syscalls/{index}")
        for index, rule in enumerate(rules)
        if _applies(table(rule, f"/syscalls/{index}"), index, arch, capabilities, kernel)
    ]
    return flat


def flat(
    document: Document, *, capabilities: Collection[str], machine: str, kernel: tuple[int, int]
) -> dict[str, Any] | None:
    """Give the flat ``linux.seccomp`` of a profile in any format; ShimError names its file."""
    if document.format is not DOCKER:
        return document.seccomp
    try:
        return resolve(document.tree, capabilities=capabilities, machine=machine, kernel=kernel)
    except ShimError as error:
        where = f"{document.where} {error.subject}".strip()
        raise ShimError(error.message, subject=where, hint=error.hint) from None


def _architectures(profile: dict[str, Any], scmp_arch: str) -> list[str]:
    listed = strings(profile, "architectures", "")
    mapped = sequence(profile, "archMap", "")
    if listed and mapped:
        raise ShimError("the profile has both architectures and archMap", subject="/archMap")
    for index, entry in enumerate(mapped):
        pointer = f"/archMap/{index}"
        if table(entry, pointer).get("architecture") == scmp_arch:
            return [scmp_arch, *strings(table(entry, pointer), "subArchitectures", pointer)]
    return listed


def _applies(
    rule: dict[str, Any],
    index: int,
    arch: str,
    capabilities: Collection[str],
    kernel: tuple[int, int],
) -> bool:
    """Tell whether nothing excludes the rule and everything that it includes is there."""
    for key in ("excludes", "includes"):
        pointer = f"/syscalls/{index}/{key}"
        where = table(rule.get(key) or {}, pointer)
        arches, caps = strings(where, "arches", pointer), strings(where, "caps", pointer)
        least = _kernel(where, pointer)
        there = [cap in capabilities for cap in caps]
        if key == "excludes":
            if arch in arches or any(there) or (least is not None and kernel >= least):
                return False
        elif (arches and arch not in arches) or not all(there) or (least and kernel < least):
            return False
    return True


def _flat(rule: dict[str, Any], pointer: str) -> dict[str, Any]:
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


def _kernel(where: dict[str, Any], pointer: str) -> tuple[int, int] | None:
    text = where.get("minKernel")
    if text is None:
        return None
    parts = str(text).split(".")
    if text == "":
        return 0, 0
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and int(p) < 256 for p in parts):
        raise ShimError(
            f"{text} is no kernel version", subject=f"{pointer}/minKernel", hint='write it as "4.8"'
        )
    return int(parts[0]), int(parts[1])
