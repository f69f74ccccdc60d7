"""Whose calls are watched: a process's and its children's, a container's, a unit's, a command's.

A container is known again by its mount namespace, which the kernel tells with each call: so a
process counts that ended before anybody could look at it in /proc. The kernel gives the number of a
namespace that is no more to the next one, so a number is only as good as the processes that hold
it: the first one of a container lives as long as the container.
"""

import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from shim.errors import ShimError
from shim.host import processes
from shim.host.tracing.refusals import Ended
from shim.risk import units
from shim.risk.container_names import EngineRecords, Known
from shim.risk.containers import place_of, running
from shim.risk.groups import PLAIN, Place, unit_of

# include/linux/proc_ns.h, PROC_PID_INIT_INO
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
_LOOKED = 10_000
_ASKED = 50  # containers whose engines are asked for a name
_BELIEVED = 0.1  # seconds for which a namespace is taken to be held by whom it was


class Watched:
    """Tell of a call which group it is counted in; None: it is nobody's who is watched."""

    def __init__(
        self,
        *,
        pid: int = 0,
        pids: Collection[int] = (),
        starter: int = 0,
        unit: Place | None = None,
    ) -> None:
        """Watch one of these; with none of them everybody.

        ``pid``: this process and what it starts. ``pids``: all of the container that these are in.
        ``starter``: what this process starts from now on, and containers that are new. ``unit``:
        all in its cgroup, now or later. ShimError: they cannot be told from others.
        """
        if processes.namespace("self", "pid") != _FIRST_PID_NAMESPACE:
            raise ShimError(
                "the kernel tells of processes by other numbers than those here",
                hint="run it on the host, outside of containers",
            )
        self._here = processes.namespace("self", "mnt")
        self._pid, self._starter, self._unit = pid, starter, unit
        self._meant = _held(pids)
        self._others = _held(processes.pids()) if starter else {}
        self._labels: dict[int, tuple[_Holders, str]] = {}
        self._names: dict[Place, str] = {}
        self._looked: dict[object, tuple[float, tuple[int, Place]]] = {}
        if self._here in self._meant:
            raise ShimError(
                "this container has the host's own mount namespace, so its calls cannot be told "
                "from others",
                hint="--pid watches a process and what it starts",
            )

    @property
    def places(self) -> list[int]:
        """Return the mount namespaces of the container that is watched; empty: it is none."""
        return list(self._meant)

    def __call__(self, call: Ended) -> str | None:
        """Return the group's name."""
        if self._pid:
            counts = self._pid in (call.pid, *call.ancestors)
        elif self._unit:
            return self._name(self._unit) if self._unit == self._by_unit(call) else None
        elif self._meant:
            counts = call.place in self._meant and self._meant[call.place].hold(call)
        elif self._starter:
            counts = self._starter in call.ancestors or self._is_new(call)
        else:
            counts = True
        return self._label(call) if counts else None

    def _is_new(self, call: Ended) -> bool:
        """Tell whether a call comes from a namespace that was not there at the begin.

        What lives on in no container is somebody's own namespace; of what is gone nobody can say.
        """
        if call.place == self._here or self._is_nobodys(call):
            return False
        holders = self._others.get(call.place)
        if holders and not holders.hold(call):
            del self._others[call.place]  # its number is another's now
            return True
        return holders is None

    def _label(self, call: Ended) -> str:
        if call.place in self._labels:
            holders, label = self._labels[call.place]
            if holders.hold(call):
                return label
            del self._labels[call.place]
        pid, found = self._found(call)
        label = self._name(found)
        if call.place != self._here and pid:  # in the host's own are many
            self._labels[call.place] = _Holders(call.place, [pid]), label
        return label

    def _is_nobodys(self, call: Ended) -> bool:
        pid, found = self._found(call)
        return bool(pid) and found.kind != "container"

    def _name(self, where: Place) -> str:
        """Name a place. Anybody can make places: only so many are asked about."""
        if where not in self._names:
            if where.kind != "container":
                return describe(where, Known(name=where.ident, engine=where.engine))
            if len(self._names) >= _ASKED:
                return describe(where, Known(name=where.ident[:12], engine=where.engine))
            self._names[where] = describe(where, EngineRecords([where]).known(where))
        return self._names[where]

    def _found(self, call: Ended) -> tuple[int, Place]:
        """Return a process of a call's place, 0 if none is left, and its container or unit.

        Calls come in thousands, and a look may go through all of /proc: one is believed for a
        moment.
        """
        key = call.pid if call.place == self._here else -call.place
        return self._once(key, lambda: self._located(call))

    def _by_unit(self, call: Ended) -> Place:
        """Return the unit of the caller; if it has ended, of the nearest above it that lives.

        That one is in the same mount namespace: above a container, which has ended, is another
        unit's process (containerd-shim). Units share namespaces, and those of one need not be in
        the same.
        """
        return self._once(("unit", call.pid), lambda: _nearest(call))[1]

    def _once(self, key: object, look: Callable[[], tuple[int, Place]]) -> tuple[int, Place]:
        """Return what a look found, and believe it for a moment."""
        until, found = self._looked.get(key, (0.0, (0, PLAIN)))
        if time.monotonic() > until:
            if len(self._looked) > _LOOKED:
                self._looked.clear()
            found = look()
            self._looked[key] = time.monotonic() + _BELIEVED, found
        return found

    def _located(self, call: Ended) -> tuple[int, Place]:
        """Look for the container or unit of a call, at its process or another of its place."""
        near = (call.pid, *call.ancestors)
        for pid in near if call.place == self._here else (*near, *processes.pids()):
            with suppress(OSError):
                if processes.namespace(pid, "mnt") == call.place:
                    return pid, place_of(pid)
        return 0, PLAIN


def _nearest(call: Ended) -> tuple[int, Place]:
    for pid in (call.pid, *call.ancestors):
        with suppress(OSError):
            if pid == call.pid or processes.namespace(pid, "mnt") == call.place:
                return pid, unit_of(processes.cgroup(pid))
    return 0, PLAIN


class _Holders:
    """Processes that were seen in a mount namespace."""

    def __init__(self, number: int, pids: Collection[int]) -> None:
        self._number = number
        self._pids = set(pids)
        self._until = time.monotonic() + _BELIEVED
        self._there = True

    def hold(self, call: Ended) -> bool:
        """Tell whether the namespace of a call is still the one that they are in."""
        if not self._pids.isdisjoint((call.pid, *call.ancestors)):
            return True
        if time.monotonic() > self._until:
            self._there = any(map(self._is_in, self._pids))
            self._until = time.monotonic() + _BELIEVED
        return self._there

    def _is_in(self, pid: int) -> bool:
        try:
            return processes.namespace(pid, "mnt") == self._number
        except OSError:
            return False


def _held(pids: Iterable[int]) -> dict[int, _Holders]:
    """Return the mount namespaces of processes, with who is in them."""
    found: dict[int, list[int]] = {}
    for pid in pids:
        with suppress(OSError):
            found.setdefault(processes.namespace(pid, "mnt"), []).append(pid)
    return {number: _Holders(number, each) for number, each in found.items()}


def describe(where: Place, known: Known) -> str:
    """Name a container or unit for people: ``docker web``, ``systemd sshd.service``."""
    return f"{known.engine} {known.name}".strip() if where.ident else "-"


def unit(name: str) -> tuple[str, list[int]]:
    """Return how a running unit is named for people, and its processes. ShimError: none runs."""
    found = units.running(name)
    return describe(found.place, found.known), found.pids


def container(name: str) -> tuple[str, list[int]]:
    """Return how a running container is named for people, and its processes.

    ShimError: no such container runs, or more than one is meant.
    """
    found = running(name)
    return describe(found.place, found.known), found.pids
