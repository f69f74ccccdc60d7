"""What a host's facts come to: can its containers be killed, and if so, what is left to do. Pure.

It errs towards ``exposed``: what cannot be told of an engine does not count as protection.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shim.catalog import Syscall
from shim.errors import counted
from shim.host.runtimes import knows

# In order of urgency.
VERDICTS = {
    "exposed": "the kernel lets profiles deny the calls, and something here does: containers can "
    "die",
    "failed": "the host could be reached, but not be asked or changed",
    "unreachable": "the host did not answer",
    "not asked": "nothing is known of the host yet",
    "unknown": "the kernel could not be asked what it does",
    "protected": "the kernel lets profiles deny the calls, and nothing here does",
    "not affected": "the kernel lets no profile deny the calls, or has none of them",
}

# Verdicts of shim.profile.evaluate under which a call does not reach the kernel.
_DENYING = ("denied-by-default", "conditional", "no-x86-64", "explicit-deny", "supervised")


def verdict(
    told: Mapping[str, Any], calls: Mapping[str, Syscall], allowed: Mapping[str, str]
) -> tuple[str, str]:
    """Judge a host by its facts; gives the verdict, and why in one line.

    ``calls`` are those that kernels inject. ``allowed`` are files that have been changed since the
    facts were told: what is in them now, ``allows`` or ``denies``.
    """
    states = {name: str(each["state"]) for name, each in told["syscalls"].items()}
    filtered = [name for name, state in states.items() if state == "filtered"]
    if not filtered:
        unknown = [name for name, state in states.items() if state == "unknown"]
        if unknown:
            return "unknown", f"the kernel could not be asked about {', '.join(unknown)}"
        return "not affected", ", ".join(f"{name} {state}" for name, state in states.items())
    dying = ", ".join(filtered)
    engines = [each for each in told["engines"] if each["present"]]
    uncovered = [each["engine"] for each in engines if not _covers(each)]
    if engines and not uncovered:
        return "protected", f"{dying} filtered; every engine starts containers through the wrapper"
    wrong = [
        *_profiles(told["profiles"] or [], filtered, allowed),
        *_builtin(engines, told["profiles"] or []),
        *_runtimes(told["runtimes"], [calls[name] for name in filtered]),
    ]
    if wrong:
        return "exposed", f"{dying} filtered; {'; '.join(wrong)}"
    return (
        "protected",
        f"{dying} filtered; its profiles allow the calls, and its runtimes know them",
    )


def _covers(engine: Mapping[str, Any]) -> bool:
    """Tell whether all new containers of an engine are looked after."""
    return bool(engine["registered"] and engine["covers_all"])


def _profiles(
    profiles: Sequence[Mapping[str, Any]], filtered: Sequence[str], allowed: Mapping[str, str]
) -> Iterator[str]:
    default: set[str] = set()
    named: set[str] = set()
    for each in profiles:
        verdicts = {call: told["verdict"] for call, told in each["calls"].items()}
        denies = any(verdicts.get(call) in _DENYING for call in filtered)
        now = allowed.get(each["file"], "denies" if denies else "allows")
        if now == "denies":
            by_name = any(verdicts.get(call) == "explicit-deny" for call in filtered)
            (named if by_name else default).add(each["file"])
    if default:
        yield f"{counted(len(default), 'profile denies', 'profiles deny')} by default"
    if named:
        yield f"{counted(len(named), 'profile denies', 'profiles deny')} by name"


def _builtin(
    engines: Sequence[Mapping[str, Any]], profiles: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Tell of a Docker that uses the profile built into it, which knows the calls from 28.2 on."""
    for each in engines:
        own = any(
            use["who"] == "docker daemon"
            for profile in profiles
            for use in profile.get("used_by", ())
        )
        version = each.get("version")
        # Not shim.engines.docker.builtin: what is newer than our data knows the calls all the same.
        if each["engine"] == "docker" and not own and not knows(version or None, "28.2"):
            yield f"Docker {version or 'of unknown version'} has a built-in profile that denies"


def _runtimes(runtimes: Sequence[Mapping[str, Any]], calls: Sequence[Syscall]) -> Iterator[str]:
    """Tell of runtimes that drop a call's name from any profile."""
    dropping: dict[str, list[str]] = {}
    for each in runtimes:
        names = ", ".join(
            call.name for call in calls if not knows(each["libseccomp"], call.libseccomp)
        )
        if names:
            runtime = f"{os.path.basename(each['path'])} ({each['libseccomp'] or 'unknown'})"
            dropping.setdefault(names, []).append(runtime)
    for names, found in dropping.items():
        who = " and ".join(found)
        yield f"libseccomp of {who} drops the name {names}: install the wrapper"
