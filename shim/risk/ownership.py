"""Where a live process is: by its cgroup, or, where it has none of its own, by its monitor."""

import functools
import os

from shim.host import processes
from shim.risk.groups import Place, place
from shim.risk.monitors import monitor

_GENERATIONS = 64


def where_is(pid: int, cgroup: str, *, nested: bool) -> Place:
    """Return the place of process ``pid``; ``nested``: it is in a pid namespace below ours.

    Users without a cgroup of theirs, and podman --cgroups=disabled, leave a container where its
    conmon is; who descends from that and has a pid namespace of its own is in the container. A
    cgroup that is ours, too, is nobody's container.
    """
    found = place(cgroup)
    if found.kind != "process" or not nested:
        return found
    own = set(_own_cgroup().split("\n"))
    others = "\n".join(line for line in cgroup.split("\n") if line not in own)
    return _monitored(pid) or place(others, nested=True)._replace(user=found.user)


@functools.cache
def _own_cgroup() -> str:
    return processes.cgroup(os.getpid())


def _monitored(pid: int) -> Place | None:
    try:
        for _ in range(_GENERATIONS):
            pid = processes.parent(pid)
            if pid <= 1:
                return None
            if found := monitor(pid):
                return Place("container", "podman", found.ident, user=found.user)
    except (OSError, LookupError):
        pass  # one of them has ended
    return None
