"""Docker's profile format: rules under conditions, which the daemon resolves for each container.

Moby's profiles/seccomp/seccomp_linux.go (setupSeccomp) and Podman's copy of it in containers/common
decide which rules hold; here they are read for every container on x86-64 at once.
"""

from shim.errors import ShimError
from shim.profile import evaluate as core

ARCHITECTURE = "amd64"


def says(profile: dict[str, object], name: str) -> tuple[str, str]:
    """Tell a Docker profile's verdict on ``name``, and its reason, as ``shim.profile.evaluate``.

    ``conditional`` also stands for a rule that asks for capabilities or a kernel version:
    containers without them still lack the call. ``explicit-deny`` stands for a denial under any
    condition that can hold on x86-64.
    """
    return core.verdict(profile, name, architectures(profile), names_of, applies)


def architectures(profile: dict[str, object]) -> list[str]:
    """Give every architecture that the profile mentions; empty: the native one."""
    listed = [*core.strings(profile, "architectures", "")]
    mapped = core.sequence(profile, "archMap", "")
    if listed and mapped:
        raise ShimError(
            "has both archMap and architectures, which Docker refuses", subject="/archMap"
        )
    for index, entry in enumerate(mapped):
        pointer = f"/archMap/{index}"
        row = core.table(entry, pointer)
        listed.append(str(row.get("architecture")))
        listed += core.strings(row, "subArchitectures", pointer)
    return listed


def names_of(rule: dict[str, object], pointer: str) -> list[str]:
    """Give the names of a rule, the deprecated single ``name`` included."""
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
    includes = _conditions(rule, "includes", pointer)
    excludes = _conditions(rule, "excludes", pointer)
    included = core.strings(includes, "arches", f"{pointer}/includes")
    excluded = core.strings(excludes, "arches", f"{pointer}/excludes")
    if (included and ARCHITECTURE not in included) or ARCHITECTURE in excluded:
        return core.NEVER
    limits = [each.get(key) for each in (includes, excludes) for key in ("caps", "minKernel")]
    return core.SOMETIMES if any(limits) else core.ALWAYS


def _conditions(rule: dict[str, object], key: str, pointer: str) -> dict[str, object]:
    value = rule.get(key)
    return {} if value is None else core.table(value, f"{pointer}/{key}")
