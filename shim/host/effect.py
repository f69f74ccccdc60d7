"""What a call's name in a profile does on a host: each runtime's libseccomp knows or drops it."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from shim.catalog import Syscall
from shim.errors import ShimError
from shim.host.libseccomp import system_libseccomp
from shim.host.runtimes import about, find, knows

# A runtime as a host's facts tell it, and the library there that bindings load, if any.
Runtimes = Iterable[Mapping[str, Any]]
Library = Mapping[str, Any]


class Effect(NamedTuple):
    """The runtimes that know a name, that drop it, and that do not tell; each as ``PATH (...)``."""

    knows: tuple[str, ...]
    drops: tuple[str, ...]
    untold: tuple[str, ...]

    @property
    def word(self) -> str:
        """Return under which runtimes the name has an effect: all, some, none; or unknown."""
        if self.drops:
            return "some" if self.knows else "unknown" if self.untold else "none"
        return "unknown" if self.untold or not self.knows else "all"

    @property
    def text(self) -> str:
        """Say in a few words where the name has no effect; empty: nowhere that is known."""
        if self.word == "none":
            return f"no effect: {_drop(self.drops)}"
        if self.drops:
            return f"no effect under {' and '.join(self.drops)}: dropped there"
        return ""


NOTHING_KNOWN = Effect((), (), ())


def runtimes() -> list[dict[str, str | None]]:
    """Return the runtimes here as facts tell them: ``path``, ``program``, ``libseccomp``."""
    return [described(path) for name in ("runc", "crun") if (path := find(name))]


def described(path: str) -> dict[str, str | None]:
    """Return one runtime as facts tell it."""
    told = about(path)
    return {"path": path, "program": told.program, "libseccomp": told.libseccomp}


def library(calls: Iterable[str]) -> dict[str, Any]:
    """Return the libseccomp of this host as facts tell it: ``version`` and ``resolves``."""
    try:
        version, resolves = system_libseccomp(list(calls))
    except ShimError as error:
        return {"error": str(error)}
    return {"version": version, "resolves": resolves}


def effects(calls: Iterable[Syscall], found: Runtimes, here: Library) -> dict[str, Effect]:
    """Return what each call's name does under the runtimes ``found`` on a host. Pure.

    A distribution's libseccomp can know more than the release whose number it has: of a runtime
    with the version of the library ``here``, that one's word counts.
    """
    result = {}
    for call in calls:
        groups: dict[bool | None, list[str]] = {True: [], False: [], None: []}
        for each in found:
            groups[_knows(call, each["libseccomp"], here)].append(
                f"{each['path']} (libseccomp {each['libseccomp'] or 'of unknown version'})"
            )
        result[call.name] = Effect(*(tuple(groups[which]) for which in (True, False, None)))
    return result


def effects_here(calls: Iterable[Syscall], runtime: str = "") -> dict[str, Effect]:
    """Return what each call's name does under the runtimes of this host, or ``runtime`` alone."""
    calls = list(calls)
    path = os.path.abspath(runtime) if "/" in runtime else find(runtime) if runtime else ""
    found = [described(path)] if path else [] if runtime else runtimes()
    return effects(calls, found, library(call.name for call in calls))


def idle(names: Iterable[str], known: Mapping[str, Effect]) -> list[str]:
    """Say of names in a profile where they do nothing; what is alike once."""
    alike: dict[str, list[str]] = {}
    for name in names:
        if text := known.get(name, NOTHING_KNOWN).text:
            alike.setdefault(text, []).append(name)
    return [f"{', '.join(found)}: {text}" for text, found in alike.items()]


def together(names: Iterable[str], known: Mapping[str, Effect]) -> str:
    """Return the word for several names of one profile."""
    words = {known.get(name, NOTHING_KNOWN).word for name in names}
    if len(words) == 1:
        return words.pop()
    return "some" if words & {"none", "some"} else "unknown"


def next_steps(calls: Iterable[Syscall], known: Mapping[str, Effect]) -> list[str]:
    """Say what helps where a runtime drops the names of ``calls``: a line for each kind of call."""
    dropped = [call for call in calls if known.get(call.name, NOTHING_KNOWN).drops]
    kinds = {call.kind for call in dropped}
    steps = []
    if "kernel-injected" in kinds:
        steps.append(
            "where a runtime drops the name, the wrapper lets the call through without it: "
            "seccomp-shim install ENGINE --default"
        )
    if "program" in kinds:
        listed = (
            f"{call.name} needs {call.libseccomp or 'one that is not out yet'}"
            for call in dropped
            if call.kind == "program"
        )
        steps.append(f"a runtime with a newer libseccomp knows the name: {', '.join(listed)}")
    return steps


def _knows(call: Syscall, version: str | None, here: Library) -> bool | None:
    if not version:
        return None
    if version == here.get("version") and call.name in here["resolves"]:
        return bool(here["resolves"][call.name])
    return knows(version, call.libseccomp)


def _drop(names: tuple[str, ...]) -> str:
    return f"{' and '.join(names)} {'drop' if len(names) > 1 else 'drops'} the name"
