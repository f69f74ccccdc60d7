"""The monitors of Podman's and CRI-O's containers (conmon), and what their words say of them.

Everybody can call a program of his conmon and give it any words. Root's is believed where it can
be no container's root: it has no pid namespace of its own, is in the host's mount namespace, and
runs a program called conmon that only root can change. A user's is his word about his containers.
"""

import os
from contextlib import suppress
from typing import NamedTuple

from shim.errors import ShimError
from shim.host import processes
from shim.host.untrusted_files import reach
from shim.risk.groups import ident_of, place

_NAME = "conmon"


class Monitor(NamedTuple):
    """A container as its monitor was told of it; ``user`` is who runs both."""

    ident: str
    name: str
    bundle: str
    user: int


def monitor(pid: int) -> Monitor | None:
    """Return what process ``pid`` monitors; None: nothing, or it is not to be believed."""
    try:
        if processes.name(pid) != _NAME:
            return None
        status = processes.status_of(pid, ("Uid", "NSpid"))
        words = processes.command_line(pid)
        users = set(status["Uid"])
        where = place(processes.cgroup(pid))
        if len(users) > 1 or len(status["NSpid"]) > 1 or where.kind == "container":
            return None
        user = int(users.pop())
        if user == 0 and not _is_roots(pid):
            return None
    except (OSError, LookupError, ShimError):
        return None  # it has ended
    ident = ident_of(_option(words, "-c", "--cid"))
    if not ident or where.user not in (0, user):
        return None
    return Monitor(ident, _option(words, "-n", "--name"), _option(words, "-b", "--bundle"), user)


def _is_roots(pid: int) -> bool:
    if processes.namespace(pid, "mnt") not in _mounts():
        return False
    # In the same mount namespace the link tells a path that leads us there, too.
    program = processes.link(pid, "exe")
    if os.path.basename(program) != _NAME:
        return False
    with reach(program) as found:
        return found.info is not None and found.author.trusted


def _mounts() -> set[int]:
    """Return the mount namespaces that are the host's: ours may be one of our unit's."""
    found = {processes.namespace("self", "mnt")}
    with suppress(OSError):
        found.add(processes.namespace(1, "mnt"))
    return found


def _option(words: list[str], *names: str) -> str:
    """Return what follows the first of these options on a command line, empty if none is there."""
    at = next((at for at, word in enumerate(words[:-1]) if word in names), None)
    return "" if at is None else words[at + 1]
