"""The options that describe the container for which a Docker profile's conditions are decided."""

import argparse
import os
from typing import Any

from shim.errors import ShimError

_ALL = "ALL"
# include/uapi/linux/capability.h, by number, without CAP_
_NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"),
    *("IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"),
    *("LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
    *("WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)


def add_container_options(parser: argparse.ArgumentParser) -> None:
    """Add what a Docker profile's conditions ask about."""
    parser.add_argument(
        "--cap",
        action="append",
        default=[],
        metavar="CAP",
        help="a capability that the container has beside Docker's default ones (SYS_ADMIN; ALL)",
    )
    parser.add_argument(
        "--kernel",
        metavar="X.Y",
        default="",
        help="the kernel that minKernel is compared with (default: the one here)",
    )
    parser.add_argument(
        "--machine",
        metavar="M",
        default="",
        help="the machine that the profile is for, such as aarch64 (default: this one)",
    )


def container(args: argparse.Namespace) -> dict[str, Any]:
    """Return the container that the options describe, as ``document.resolved`` takes it."""
    from shim.profile.docker import DEFAULT_CAPABILITIES

    here = os.uname()
    names = {_capability(name) for name in args.cap}
    caps = {f"CAP_{name}" for name in names - {_ALL}}
    return {
        "capabilities": Everything() if _ALL in names else caps | DEFAULT_CAPABILITIES,
        "machine": machine(args),
        "kernel": _kernel(args.kernel or here.release, strict=bool(args.kernel)),
    }


def machine(args: argparse.Namespace) -> str:
    """Return what uname calls the machine that the options mean. ShimError: it is not known."""
    from shim.profile.docker import MACHINES

    name: str = args.machine or os.uname().machine
    if args.machine and name not in MACHINES:
        raise ShimError("is no machine", subject=name, hint=f"knows {', '.join(MACHINES)}")
    return name


def key_of(name: str) -> str:
    """Return the catalogue's key for the machine ``name``."""
    from shim.catalog.table import ARCHITECTURES
    from shim.profile.docker import architecture

    return ARCHITECTURES[architecture(name).removeprefix("SCMP_ARCH_")]


def here() -> dict[str, Any]:
    """Return a container of this kernel with Docker's default capabilities, as ``container``."""
    return container(argparse.Namespace(cap=[], kernel="", machine=""))


def _capability(word: str) -> str:
    """Return a capability's name without CAP_, or ALL. ShimError: the kernel has none of it."""
    import difflib

    name = word.upper().removeprefix("CAP_")
    if name in _NAMES or word.upper() == _ALL:
        return name
    near = difflib.get_close_matches(name, (*_NAMES, _ALL), cutoff=0.5)
    known = "man 7 capabilities lists them"
    hint = f"did you mean {' or '.join(near)}?" if near else known
    raise ShimError("is no capability", subject=word, hint=hint)


class Everything(frozenset[str]):
    """The capabilities of a container that has all of them."""

    def __contains__(self, _name: object) -> bool:
        return True


def _kernel(text: str, *, strict: bool) -> tuple[int, int]:
    import re

    from shim.host.runtimes import numbers

    match = re.match(r"(\d+)\.(\d+)" + (r"$" if strict else ""), text, re.ASCII)
    if match is None:
        raise ShimError("is no kernel version", subject=text, hint="write it as 6.12")
    major, minor = numbers(match[0])
    return major, minor
