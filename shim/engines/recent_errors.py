"""What the audit log says that went wrong lately."""

import glob
import json
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from shim import files

# More than a day of any host that starts ten containers a minute.
_LIMIT = 64 << 20
_CHUNK = 1 << 20


class Recent(NamedTuple):
    """What went wrong, the oldest first; ``since`` is the time from which on all was read."""

    events: list[dict[str, Any]]
    since: str
    whole: bool


def recent(log: str, seconds: float) -> Recent:
    """Return the lines of level error, or with ``verified`` false, of the last ``seconds``.

    They are read from the end, what was rotated away last included, 64 MiB at most: ``whole`` tells
    whether that was enough. A log that is not there has none. OSError: it cannot be read.
    """
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - seconds))
    found: list[dict[str, Any]] = []
    read, oldest = 0, ""
    for line in _backwards(log):
        read += len(line) + 1
        oldest = _time(line) or oldest
        if oldest and oldest < since:
            break
        # Most lines need not be parsed; what is no line of ours has neither.
        if b'"error"' in line or b"false" in line:
            event = _parsed(line)
            if event.get("level") == "error" or event.get("verified") is False:
                found.append(event)
        if read > _LIMIT:
            return Recent(found[::-1], oldest, False)
    return Recent(found[::-1], since, True)


def _backwards(log: str) -> Iterator[bytes]:
    """Return the lines of the log and of the one rotated away before it, the newest first."""
    rotated = [path for path in glob.glob(f"{glob.escape(log)}[.-]*") if not path.endswith(".gz")]
    for path in [log, *sorted(rotated, key=os.path.getmtime)[-1:]]:
        try:
            fd = files.open_regular(path)
        except FileNotFoundError:
            continue
        with open(fd, "rb") as file:
            at = os.fstat(file.fileno()).st_size
            rest = b""
            while at:
                size = min(_CHUNK, at)
                at -= size
                file.seek(at)
                first, *lines = (file.read(size) + rest).split(b"\n")
                yield from reversed(lines)
                rest = first
                if len(rest) > _LIMIT:  # no line of ours is as long
                    yield rest
                    return
            yield rest


def _time(line: bytes) -> str:
    """Return the time of a line that begins as all of ours do; empty: it is none."""
    head, _, tail = line[:64].partition(b'{"time": "')
    return tail.partition(b'"')[0].decode("ascii", "replace") if not head else ""


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}  # one that is being written, or that a full disk has cut
    return event if isinstance(event, dict) else {}
