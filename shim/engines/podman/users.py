"""What users of this host have of us in their homes: a registration of Podman, and a log.

What lies in a home is its user's, and so may be the file system that is mounted there: root reads
it with that user's rights alone, a bounded part of it, in a child that is given up after a moment.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from shim import logread
from shim.engines.podman.config import DROP_IN
from shim.errors import ShimError
from shim.host.children import answer_of
from shim.host.untrusted_files import Reached, reach

# In homes as the user database gives them; with XDG_CONFIG_HOME set Podman looks elsewhere.
REGISTRATION = f".config/containers/{DROP_IN}"
LOG = ".local/state/seccomp-shim/audit.jsonl"
_USERS = range(1000, 65534)
_SECONDS, _SECONDS_FOR_ALL = 2, 20
_BYTES = 1 << 20  # of a log's end
_ANSWER = 64 << 10
_TOLD = ("time", "event", "container", "runtime", "reason")
_EVENTS, _LENGTH = 20, 300


class User(NamedTuple):
    """One user's: the file that registers it with Podman, or nothing, and what went wrong lately.

    ``log`` is where that was read, ``unseen`` says why nothing is known.
    """

    name: str
    file: str = ""
    log: str = ""
    events: Sequence[dict[str, str]] = ()
    unseen: str = ""


def registered(seconds: float, database: str = "/etc/passwd") -> list[User]:
    """Return of whom there is something, or of whom nothing can be known, for root alone.

    ``seconds`` is how far back a log is of interest.
    """
    if os.geteuid() != 0:
        return []
    found = []
    end = time.monotonic() + _SECONDS_FOR_ALL
    for name, uid, home in _homes(database):
        left = min(_SECONDS, end - time.monotonic())
        try:
            answer = answer_of(partial(_tell, uid, home, seconds), left, _ANSWER)
            user = User(name, **json.loads(answer))
        except (OSError, ValueError, TypeError) as error:
            slow = isinstance(error, TimeoutError)
            why = "it takes too long to look there" if slow else str(error)
            user = User(name, unseen=f"{home}: {why}")
        if user != User(name):
            found.append(user)
    return found


def _homes(database: str) -> Iterator[tuple[str, int, str]]:
    """Return the users who can log in by name, id and home."""
    with open(database, encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, uid, _, _, home, *_ = [*line.rstrip("\n").split(":"), *[""] * 6]
            if uid.isdecimal() and int(uid) in _USERS and home.count("/") > 1:
                yield name, int(uid), os.path.normpath(home)


def _tell(uid: int, home: str, seconds: float, writer: int) -> None:
    """Write what there is of one user as JSON, in a child."""
    found: dict[str, Any] = {}
    try:
        with _own(f"{home}/{REGISTRATION}", uid) as place:
            if place and b"seccomp-shim" in place.read(_BYTES):
                found["file"] = place.path
        with _own(f"{home}/{LOG}", uid) as place:
            if place:
                found |= _wrong(place, seconds)
    except (OSError, ShimError) as error:
        found["unseen"] = str(error)
    os.write(writer, json.dumps(found).encode())


def _wrong(place: Reached, seconds: float) -> dict[str, Any]:
    """Return what went wrong lately by a user's log, whose lines may say anything."""
    with open(place.open(), "rb") as file:
        events = logread.lately(logread.backwards(file, _BYTES), seconds, _BYTES).events
    told = [
        {key: str(event[key])[:_LENGTH] for key in _TOLD if event.get(key)}
        for event in events[-_EVENTS:]
    ]
    return {"log": place.path, "events": told} if told else {}


@contextlib.contextmanager
def _own(path: str, uid: int) -> Iterator[Reached | None]:
    """Reach a file, if all on its way from the home on is that user's alone; else None."""
    try:
        place = reach(path)
    except (OSError, ShimError):
        yield None
        return
    with place:
        control = place.control
        mine = place.info is not None and control.owner == uid and not control.barred
        yield place if mine else None
