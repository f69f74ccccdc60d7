"""The options that describe the container for which a Docker profile's conditions are decided."""

import argparse
import os
from typing import Any

from shim.errors import ShimError

_ALL = "ALL"


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


def container(args: argparse.Namespace) -> dict[str, Any]:
    """Return the container that the options describe, as ``document.resolved`` takes it."""
    from shim.profile.docker import DEFAULT_CAPABILITIES

    here = os.uname()
    names = {name.upper() for name in args.cap}
    caps = {name if name.startswith("CAP_") else f"CAP_{name}" for name in names - {_ALL}}
    return {
        "capabilities": Everything() if _ALL in names else caps | DEFAULT_CAPABILITIES,
        "machine": here.machine,
        "kernel": _kernel(args.kernel or here.release, strict=bool(args.kernel)),
    }


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
