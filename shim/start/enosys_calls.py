"""The calls that get ENOSYS at a start, where the admin has said ``unknown_calls: enosys``.

No start without that setting imports this module.
"""

from shim.catalog.native import CALLS
from shim.profile.evaluate import X86_64
from shim.profile.unlisted_calls import named, unnamed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shim.host.runtimes import Runtime
    from shim.start.spec import Spec


def refused(spec: "Spec", runtime: "Runtime") -> "dict[str, int]":
    """Return the calls that no rule of a profile names and that ``runtime`` answers with EPERM.

    What runc answers with ENOSYS by itself is left out, and nothing is said of a program that
    takes the profile's place. ShimError: the profile cannot be understood.
    """
    if spec.takes_program(runtime.path):
        return {}
    profile = seccomp(spec)
    found, _ = unnamed(profile)
    if not found or not has_line(profile, runtime):
        return found
    heard = named(profile)
    # As if every name were known: what the filter then says of a call counts more than this.
    line = max((nr for name, nr, _ in CALLS if name in heard or nr in heard), default=0)
    return {name: nr for name, nr in found.items() if nr < line}


def seccomp(spec: "Spec") -> "dict[str, Any]":
    """Return the profile of a config.json; an empty one where there is none."""
    linux = spec.config.get("linux")
    profile = linux.get("seccomp") if isinstance(linux, dict) else None
    return profile if isinstance(profile, dict) else {}


def has_line(profile: "dict[str, Any]", runtime: "Runtime") -> bool:
    """Tell whether ``runtime`` answers ENOSYS above all that ``profile`` names, as runc does.

    runc 1.0 and 1.1 do so on the architectures that are listed (shim/profile/enosys_line.py).
    """
    if not runtime.is_at_least("runc", "1.0.0"):
        return False
    listed = profile.get("architectures")
    is_listed = isinstance(listed, list) and X86_64 in listed
    return is_listed or runtime.is_at_least("runc", "1.1.15")


def known(names: "dict[str, int]", runtime: "Runtime") -> "list[str]":
    """Return those of ``names`` that the libseccomp of ``runtime`` knows."""
    from shim.host.runtimes import knows

    releases = {name: release for name, _, release in CALLS}
    return [name for name in names if knows(runtime.libseccomp, releases[name])]
