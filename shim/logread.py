"""The audit log, read: from its end, what was rotated away before it included."""

import glob
import os
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

from shim import files
from shim.startjson import loads

# More than a day of any host that starts ten containers a minute.
_LIMIT = 64 << 20
_CHUNK = 1 << 20


class Recent:
    """What went wrong, the oldest first; ``since`` is the time from which on all was read."""

    __slots__ = ("events", "since", "whole")

    def __init__(self, events: list[dict[str, Any]], since: str, whole: bool) -> None:
        self.events = events
        self.since = since
        self.whole = whole


def recent(log: str, seconds: float) -> Recent:
    """Return the lines of level error, or with ``verified`` false, of the last ``seconds``.

    They are read from the end, what was rotated away last included, 64 MiB at most: ``whole`` tells
    whether that was enough. A log that is not there has none. OSError: it cannot be read.
    """
    return lately(_backwards(log), seconds, _LIMIT)


def lately(lines: Iterator[bytes], seconds: float, limit: int) -> Recent:
    """Return what ``recent`` does of ``lines``, the newest first, and of ``limit`` bytes."""
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - seconds))
    found: list[dict[str, Any]] = []
    read, oldest = 0, ""
    for line in lines:
        read += len(line) + 1
        oldest = _time(line) or oldest
        if oldest and oldest < since:
            break
        # Most lines need not be parsed; what is no line of ours has neither.
        if b'"error"' in line or b"false" in line:
            event = _parsed(line)
            if event.get("level") == "error" or event.get("verified") is False:
                found.append(event)
        if read > limit:
            return Recent(found[::-1], oldest, False)
    return Recent(found[::-1], since, True)


def _backwards(log: str) -> Iterator[bytes]:
    """Return the lines of the log and of the one rotated away before it, the newest first."""
    rotated = [each for each in glob.glob(f"{glob.escape(log)}[.-]*") if not each.endswith(".gz")]
    for each in [log, *sorted(rotated, key=os.path.getmtime)[-1:]]:
        try:
            fd = files.open_regular(each)
        except FileNotFoundError:
            continue
        with open(fd, "rb") as file:
            yield from backwards(file, _LIMIT)


def backwards(file: BinaryIO, limit: int) -> Iterator[bytes]:
    """Return the lines of an open log, the newest first; a line of ``limit`` bytes ends it."""
    at = os.fstat(file.fileno()).st_size
    parts: list[bytes] = []  # of a line whose beginning has not been read, the last one first
    long = 0
    while at:
        size = min(_CHUNK, at)
        at -= size
        file.seek(at)
        first, *lines = file.read(size).split(b"\n")
        if lines:
            yield b"".join((lines.pop(), *reversed(parts)))
            yield from reversed(lines)
            parts, long = [], 0
        parts.append(first)
        long += len(first)
        if long > limit:  # no line of ours is as long
            break
    yield b"".join(reversed(parts))


def _time(line: bytes) -> str:
    """Return the time of a line that begins as all of ours do; empty: it is none."""
    head, _, tail = line[:64].partition(b'{"time": "')
    return tail.partition(b'"')[0].decode("ascii", "replace") if not head else ""


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        event = loads(line)
    except ValueError:
        return {}  # one that is being written, or that a full disk has cut
    return event if isinstance(event, dict) else {}
