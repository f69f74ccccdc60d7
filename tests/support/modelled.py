"""The model of what a runtime loads, held against what it loaded."""

import json
from pathlib import Path
from typing import Any

from shim.bpf.equivalence import difference
from shim.data import directory
from shim.errors import ShimError
from shim.profile.docker import DEFAULT_CAPABILITIES, resolve
from shim.profile.docker_releases import builtin
from shim.profile.model import Loader, loaded, whole
from support import containers, odd
from support import profiles as small
from support.loaded import Real, RefusedError

BINARIES = {"runc": "/usr/sbin/runc", "crun": "/usr/bin/crun"}


def profiles() -> dict[str, dict[str, Any]]:
    """Return every profile of the comparison: Docker's, the tests' own, odd ones."""
    return {**_dockers(), "tests container": containers.profile(), "tests OCI": small.OCI} | {
        f"odd {name}": profile for name, profile in odd.PROFILES.items()
    }


def _dockers() -> dict[str, dict[str, Any]]:
    """Return each default profile that a Docker daemon had, for two sets of capabilities."""
    folder = directory("profiles") / "docker"
    base, versions = ((folder / name).read_text() for name in ("default.json", "versions.json"))
    known = json.loads(versions)
    found = {}
    for release in [known["base"], *(delta["since"] for delta in known["deltas"])]:
        tree, reason = builtin(release, base, versions)
        assert tree is not None, reason
        admin = {*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}
        for title, caps in (("", DEFAULT_CAPABILITIES), (", privileged", admin)):
            flat = resolve(tree, capabilities=caps, machine="x86_64", kernel=(6, 18))
            assert flat is not None
            found[f"docker {release}{title}"] = flat
    shipped = resolve(
        json.loads(base), capabilities=DEFAULT_CAPABILITIES, machine="x86_64", kernel=(4, 7)
    )
    assert shipped is not None
    return {**found, "docker default.json, Linux 4.7": shipped}


def docker(release: str) -> dict[str, Any]:
    """Return the default profile of a Docker daemon, with its conditions."""
    folder = directory("profiles") / "docker"
    base, versions = ((folder / name).read_text() for name in ("default.json", "versions.json"))
    tree, reason = builtin(release, base, versions)
    assert tree is not None, reason
    return tree


def unequal(real: Real, loader: Loader, profile: dict[str, Any], **more: Any) -> str:
    """Say how the model and the filter in force differ; empty: proven equal, or both refuse."""
    try:
        told: Any = loaded(profile, loader, **more)
    except ShimError as error:
        told = error
    try:
        seen = real.load(profile, **more)
    except RefusedError as error:
        return "" if isinstance(told, ShimError) else f"refused: {error}"
    if isinstance(told, ShimError):
        return f"not refused: {told}"
    if seen.flags != told.flags:
        return f"flags {seen.flags}, not {told.flags}"
    if not seen.program or not told.program:
        return "one of them has no filter" if seen.program or told.program else ""
    found = difference(whole(told), seen.program)
    return "" if found.equal else found.reason or "; ".join(map(str, found.changes[:3]))


def real(folder: Path, program: str, root: Path = Path("/")) -> tuple[Real, Loader]:
    """Return a runtime of a user land, and what the model is to take it for."""
    found = Real(folder, BINARIES[program], root)
    loader = found.loader
    return found, loader._replace(libseccomp="here") if root == Path("/") else loader
