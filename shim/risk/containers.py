"""Running containers by what people call them: by /proc and the engines, without any tracing."""

import pwd
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from shim.errors import ShimError
from shim.host import processes
from shim.risk import container_names
from shim.risk.groups import Place, unit_of
from shim.risk.ownership import where_is


class Running(NamedTuple):
    """A container with its processes."""

    place: Place
    known: container_names.Known
    pids: list[int]


def running(wanted: str) -> Running:
    """Return the running container that is meant by a name, an id or the id's beginning.

    A user's containers are his to name: they are meant by ``USER:NAME``, and by the name alone only
    where root has none of that name. ShimError: no such container runs, or more than one is meant.
    """
    found: dict[Place, list[int]] = {}
    for pid in processes.pids():
        with suppress(OSError):
            where = place_of(pid)
            if where.kind == "container":
                found.setdefault(where, []).append(pid)
    records = container_names.EngineRecords(list(found))
    known = {where: records.known(where) for where in found}
    meant = chosen(wanted, known)
    if not meant:
        silent = f" ({', '.join(records.silent)} did not answer)" if records.silent else ""
        raise ShimError(
            f"no such container runs here{silent}",
            subject=wanted,
            hint="its name, or its id as the engine lists it; --pid takes any of its processes",
        )
    if len(meant) > 1:
        each = ", ".join(sorted(map(_spelled, meant)))
        raise ShimError(f"several containers are meant: {each}", subject=wanted, hint="give one")
    pids = [pid for where, of in found.items() if meant[0].holds(where) for pid in of]
    return Running(meant[0], known[meant[0]], pids)


def chosen(wanted: str, known: dict[Place, container_names.Known]) -> list[Place]:
    """Return which of the places in ``known`` are meant, as ``running`` takes its argument."""
    meant = [where for where in known if container_names.means(wanted, where, known[where])]
    # Only a container that no engine has named has a path for an id: it is meant before others.
    whole = [where for where in meant if where.ident == wanted]
    for some in (_roots(whole), _roots(meant), meant):
        if some:
            return some
    user, rest = user_of(wanted)
    if not rest or user is None:
        return []
    return chosen(rest, {where: each for where, each in known.items() if where.user == user})


def user_of(wanted: str) -> tuple[int | None, str]:
    """Return the user of ``USER:NAME``, None if it names none, and the name."""
    owner, _, rest = wanted.partition(":")
    try:
        return (int(owner) if owner.isdecimal() else pwd.getpwnam(owner).pw_uid), rest
    except (KeyError, ValueError):
        return None, rest


def place_of(pid: int) -> Place:
    """Return where a process is. OSError: it has ended."""
    numbers = processes.status_of(pid, ("NSpid",)).get("NSpid", ())
    return where_is(pid, processes.cgroup(pid), nested=len(numbers) > 1)


def is_in(where: Place, pid: int) -> bool:
    """Tell whether a process is in a container or a unit, whose containers are in it, too.

    OSError: it has ended.
    """
    if where.kind == "unit":
        return unit_of(processes.cgroup(pid)) == where
    return where.holds(place_of(pid))


def _roots(places: Iterable[Place]) -> list[Place]:
    return [each for each in places if not each.user]


def _spelled(where: Place) -> str:
    """Return by what this one alone is meant."""
    return f"{where.user}:{where.ident}" if where.user else where.ident
