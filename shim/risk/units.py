"""Units of systemd: their processes, and what the filters that these really have answer."""

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from shim.discovery.sources.units import FOLDERS
from shim.errors import ShimError, counted
from shim.host import processes
from shim.risk import scan
from shim.risk.container_names import Known
from shim.risk.containers import Running, is_in, place_of, user_of
from shim.risk.groups import Place
from shim.risk.outlook import DENIED, DIES, SAFE, Outlook

_SUFFIXES = (".service", ".scope", ".socket")
_SECONDS = 20.0  # for all units; whom it does not come to is told as not read
_SHOWN = 2


class Live(NamedTuple):
    """What the processes answer of the units that one file is of."""

    groups: tuple[scan.Group, ...]

    @property
    def seen(self) -> list[scan.ScannedProcess]:
        """Return all processes."""
        return [each for group in self.groups for each in group.seen]

    @property
    def state(self) -> str:
        """Return what they do with the calls: ``allows``, ``denies`` or ``not judged``."""
        found = {each.outcome for one in self.seen for each in one.outlooks.values()}
        if found & {DIES, DENIED}:
            return "denies"
        return "allows" if found == {SAFE} else "not judged"

    def why(self) -> str:
        """Say what the state rests on, in a line."""
        total = len(self.seen)
        bare = sum(one.process.mode == 0 for one in self.seen)
        told: dict[tuple[str, int], list[str]] = {}
        for name in self.seen[0].outlooks:
            some: dict[str, int] = {}
            for one in self.seen:
                what = _said(one.outlooks[name])
                some[what] = some.get(what, 0) + bool(what)
            for what, count in some.items():
                if what:
                    told.setdefault((what, count), []).append(name)
        parts = [
            f"{', '.join(names)}: {what}" + (f" in {count} of them" if count < total else "")
            for (what, count), names in told.items()
        ]
        if bare:
            parts.append("no filter" if bare == total else f"no filter in {bare} of them")
        names = sorted(group.place.ident for group in self.groups)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        whose = f"{counted(total, 'process', 'processes')} of {', '.join(names[:_SHOWN])}{more}"
        return f"{'; '.join(parts) or 'they pass'} (by {whose})"

    def documents(self) -> list[dict[str, Any]]:
        """Return it by unit as JSON, of each call what the worst process answers."""
        return [
            {
                "unit": group.place.ident,
                "processes": len(group.seen),
                "pid": group.seen[0].process.pid,
                "unfiltered": sum(one.process.mode == 0 for one in group.seen),
                "calls": {
                    name: _counted(group, name, group.worst(name))
                    for name in group.seen[0].outlooks
                },
            }
            for group in self.groups
        ]


def live(paths: Collection[str]) -> dict[str, Live]:
    """Return of each file of a unit, or drop-in, what live processes of its units answer, if any.

    Only root's own units count: a user's manager of systemd reads other files. ShimError: we may
    not read filters. OSError: no child can be started that reads them.
    """
    scan.refuse_without_root()
    known = {path: _names(path) for path in paths}
    every = set().union(*known.values())
    pids = _pids(lambda pid: _is_of(place_of(pid), every))
    if not pids:
        return {}
    looked = scan.scan(scan.calls(), pids=pids, named=False, gone_is_error=False, seconds=_SECONDS)
    groups = [each for each in looked.groups if each.place.kind == "unit" and not each.place.user]
    found = {
        path: Live(tuple(g for g in groups if any(_fits(each, g.place.ident) for each in names)))
        for path, names in known.items()
    }
    return {path: each for path, each in found.items() if each.groups}


def unit(wanted: str) -> Place:
    """Return the place of the unit that a name means: root's, or ``USER:NAME`` a user's."""
    user, rest = user_of(wanted)
    name = rest if user is not None and rest else wanted
    full = name if name.endswith(_SUFFIXES) else f"{name}.service"
    return Place("unit", "systemd", full, user=user or 0)


def running(wanted: str) -> Running:
    """Return the unit that a name means, its processes the oldest first. ShimError: none runs."""
    meant = unit(wanted)
    pids = _pids(partial(is_in, meant))
    if not pids:
        hint = "the whole name, as systemctl lists it; USER:NAME is one of a user's"
        raise ShimError("no such unit runs here", subject=wanted, hint=hint)
    return Running(meant, Known(name=meant.ident, engine=meant.engine), pids)


def _pids(is_meant: Callable[[int], bool]) -> list[int]:
    """Return the processes that are meant, the oldest first."""
    found = []
    for pid in processes.pids():
        with suppress(OSError, LookupError):  # it has ended
            if is_meant(pid):
                found.append((int(processes.started(pid)), pid))
    return [pid for _, pid in sorted(found)]


def _is_of(where: Place, names: Collection[str]) -> bool:
    fits = any(_fits(each, where.ident) for each in names)
    return fits and where.kind == "unit" and not where.user


def _names(path: str) -> set[str]:
    """Return the names of the units that a file is of: by its own name, and by what that links to.

    A process is in the cgroup of the unit's first name, whatever the name of a drop-in's directory.
    """
    names = {_name(path), _name(os.path.realpath(path))}
    links = (f"{folder}/{name}" for folder in FOLDERS for name in names)
    return names | {os.path.basename(os.path.realpath(each)) for each in links}


def _name(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.basename(folder).removesuffix(".d") if name.endswith(".conf") else name


def _fits(name: str, unit: str) -> bool:
    """Tell whether a file's ``name`` is that of ``unit``, of its template, or of its prefix.

    systemd.unit(5): ``x@.service`` is all of its instances', drop-ins in ``x-.service.d`` are for
    all whose names begin with ``x-``, and in ``service.d`` for every service.
    """
    stem, dot, kind = name.rpartition(".")
    if not unit.endswith(f".{kind}"):
        return False
    if stem.endswith(("@", "-")):
        return unit.startswith(stem)
    return not dot or name == unit


def _said(found: Outlook) -> str:
    """Say what is not safe in an outlook: the answer, or why there is none; empty: it is."""
    if found.outcome == SAFE:
        return ""
    return found.verdict if found.outcome in (DIES, DENIED) else found.why


def _counted(group: scan.Group, call: str, worst: Outlook) -> dict[str, Any]:
    alike = sum(one.outlooks[call].outcome == worst.outcome for one in group.seen)
    return {
        "outcome": worst.outcome,
        "verdict": worst.verdict or None,
        "why": worst.why,
        "processes": alike,
    }
