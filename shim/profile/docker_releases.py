"""The profile that each version of the Docker daemon has built in: a base and deltas of it.

Pure: given the texts of ``profiles/docker/default.json`` and ``versions.json``, out comes a profile
in Docker's format. A version that nobody has looked at has none: patch releases have changed the
profile before (20.10.22 blocked AF_VSOCK, 20.10.23 took that back).
"""

import json
import re
from typing import Any

from shim.errors import ShimError
from shim.host.runtimes import numbers

# Upstream's own releases, as they are or built by a distribution: Debian's +dfsg1, SUSE's -ce.
_RELEASE = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(\+[0-9A-Za-z.~-]+|-ce)?", re.ASCII)
_LATER = re.compile(r"v?\d+\.\d+\.\d+", re.ASCII)

Version = tuple[int, ...]


def parse(text: str) -> tuple[Version | None, str]:
    """Read a daemon's version; None and why not, where it is no release of Docker's own."""
    found = _RELEASE.fullmatch(text)
    if found:
        return numbers(text.removeprefix("v")), ""
    if _LATER.match(text):
        return None, f"{text} is a pre-release, or somebody's own build of Docker"
    return None, f"{text or 'an empty version'} is no release of Docker"


def builtin(version: str, base: str, versions: str) -> tuple[dict[str, Any] | None, str]:
    """Return the profile that a daemon of ``version`` has built in, or None and why it is unknown.

    ``base`` and ``versions`` are the texts of the two data files.
    """
    release, reason = parse(version)
    if release is None:
        return None, reason
    known: dict[str, Any] = json.loads(versions)
    newest = known["newest"].get(f"{release[0]}.{release[1]}", -1)
    if release[2] > newest:
        return None, f"the profile built into Docker {version} is not known to this seccomp-shim"
    deltas = {numbers(delta["since"]): delta for delta in known["deltas"]}
    since = max(each for each in (*deltas, numbers(known["base"])) if each <= release)
    return _built(since, json.loads(base), deltas), ""


def _built(since: Version, base: dict[str, Any], deltas: dict[Version, Any]) -> dict[str, Any]:
    """Return the profile that came with ``since``: the base, or what its delta makes of another.

    Both arguments are used up: the profile is made of what is in them.
    """
    delta = deltas.get(since)
    if delta is None:
        return base
    profile = _built(numbers(delta["like"]), base, deltas)
    for key in delta.get("unset", ()):
        del profile[key]
    gone = delta.get("remove_architectures", ())
    rows = [row for row in profile["archMap"] if row["architecture"] not in gone]
    profile["archMap"] = rows + delta.get("add_architectures", [])
    for rule in delta.get("remove", ()):
        _remove(profile["syscalls"], rule, delta["since"])
    for rule in delta.get("add", ()):
        _add(profile["syscalls"], rule)
    return profile


def _remove(rules: list[dict[str, Any]], like: dict[str, Any], since: str) -> None:
    """Take names out of the rule that has the same action and conditions; ShimError: not there."""
    rule = _twin(rules, like)
    missing = set(like["names"]) - set(rule["names"] if rule else ())
    if rule is None or missing:
        raise ShimError(f"removes what is not there: {like['names']}", subject=f"delta {since}")
    rule["names"] = [name for name in rule["names"] if name not in like["names"]]
    if not rule["names"]:
        rules.remove(rule)


def _add(rules: list[dict[str, Any]], like: dict[str, Any]) -> None:
    rule = _twin(rules, like)
    if rule is None:
        rules.append(like)
    else:
        rule["names"] = sorted({*rule["names"], *like["names"]})


def _twin(rules: list[dict[str, Any]], like: dict[str, Any]) -> dict[str, Any] | None:
    """Return the rule that differs from ``wanted`` in its names alone."""
    alike = (rule for rule in rules if {**rule, "names": 0} == {**like, "names": 0})
    return next(alike, None)
