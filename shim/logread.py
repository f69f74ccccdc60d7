"""The audit log, read: from its end, what was rotated away before it included.

An error that was dealt with is acknowledged by a line of its own, ``acknowledged``: it covers those
before it, up to the time ``until``, of one ``container`` where it names one.
"""

import calendar
import contextlib
import glob
import gzip
import os
import stat
import time
import zlib
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

    Those that were acknowledged are left out. They are read from the end, what was rotated away
    last included, 64 MiB at most: ``whole`` tells whether that was enough. A log that is not there
    has none. OSError: it cannot be read.
    """
    return lately(_backwards(log), seconds, _LIMIT)


def lately(lines: Iterator[bytes], seconds: float, limit: int) -> Recent:
    """Return what ``recent`` does of ``lines``, the newest first, and of ``limit`` bytes."""
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - seconds))
    found: list[dict[str, Any]] = []
    acknowledged: list[dict[str, Any]] = []
    read, oldest = 0, ""
    for line in lines:
        read += len(line) + 1
        oldest = _time(line) or oldest
        if oldest and oldest < since:
            break
        # Most lines need not be parsed; what is no line of ours has neither.
        if b'"error"' in line or b"false" in line:
            event = parsed(line)
            if is_wrong(event) and not covered(event, acknowledged):
                found.append(event)
        elif b'"acknowledged"' in line:
            acknowledged += acknowledgement(line)
        if read > limit:
            return Recent(found[::-1], oldest, False)
    return Recent(found[::-1], since, True)


def _backwards(log: str) -> Iterator[bytes]:
    """Return the lines of the log and of the one rotated away before it, the newest first."""
    for each in log_files(log)[:2]:
        try:
            fd = files.open_regular(each)
        except FileNotFoundError:
            continue
        with open(fd, "rb") as file:
            if each.endswith(".gz"):
                yield from b"".join(_unpacked(file, _LIMIT)).split(b"\n")[::-1]
            else:
                yield from backwards(file, _LIMIT)


def log_files(log: str) -> list[str]:
    """Return the log and all that was rotated away before it, the newest first.

    Who compresses one was killed where it is there twice: then it is the plain one that counts.
    """
    rotated = glob.glob(f"{glob.escape(log)}[.-]*")
    whole = [
        each for each in rotated if each.removesuffix(".gz") == each or each[:-3] not in rotated
    ]
    found = []
    for each in whole:
        with contextlib.suppress(FileNotFoundError):  # it has just been given another number
            found.append((os.path.getmtime(each), each))
    return [log, *(each for _, each in sorted(found, reverse=True))]


def since(log: str, time_: str) -> Iterator[bytes]:
    """Return the lines from the time ``time_`` on, the oldest first, of all that is kept.

    OSError: a file cannot be read. What is cut short in one is passed over.
    """
    wanted = []
    for each in log_files(log):
        wanted.append(each)
        first = next((at for line in _lines(each) if (at := _time(line))), "")
        if first and first < time_:
            break
    for each in reversed(wanted):
        yield from (line for line in _lines(each) if _time(line) >= time_)


def after(log: str, time_: str) -> Iterator[dict[str, Any]]:
    """Return the events later than ``time_``, the newest first; what is older is not read.

    OSError: a file cannot be read.
    """
    for number, each in enumerate(log_files(log)):
        plain = not each.endswith(".gz")
        for line in _newest_first(each) if plain else _lines(each):
            at = _time(line)
            if at > time_:
                yield parsed(line)
            elif at and plain:
                return
        if not plain and number and time_ and os.path.getmtime(each) < _seconds(time_):
            return


def _newest_first(path: str) -> Iterator[bytes]:
    try:
        fd = files.open_regular(path)
    except FileNotFoundError:
        return
    with open(fd, "rb") as file:
        yield from backwards(file, _LIMIT)


def _seconds(time_: str) -> float:
    return calendar.timegm(time.strptime(time_[:19], "%Y-%m-%dT%H:%M:%S"))


def _lines(path: str) -> Iterator[bytes]:
    """Return the lines of one file, compressed or not; none where there is no such file."""
    try:
        fd = files.open_regular(path)
    except FileNotFoundError:
        return
    with open(fd, "rb") as file:
        rest = b""
        for part in (
            _unpacked(file) if path.endswith(".gz") else iter(lambda: file.read(_CHUNK), b"")
        ):
            *whole, rest = (rest + part).split(b"\n")
            yield from whole
            rest = rest if len(rest) <= _LIMIT else b""
        if rest:
            yield rest


def _unpacked(file: BinaryIO, limit: int = 0) -> Iterator[bytes]:
    """Return the parts of a compressed file, up to ``limit`` bytes where there is one."""
    read = 0
    try:
        with gzip.GzipFile(fileobj=file) as packed:
            while (not limit or read < limit) and (part := packed.read(_CHUNK)):
                read += len(part)
                yield part
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return  # it was cut short


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


def is_wrong(event: dict[str, Any]) -> bool:
    """Tell whether a line is of something that went wrong."""
    return event.get("level") == "error" or event.get("verified") is False


def acknowledgement(line: bytes) -> list[dict[str, Any]]:
    """Return what a line acknowledges, nothing where it does not."""
    event = parsed(line)
    return [event] if event.get("event") == "acknowledged" else []


def covered(event: dict[str, Any], acknowledged: list[dict[str, Any]]) -> bool:
    """Tell whether something that went wrong was dealt with, as one of ``acknowledged`` says."""
    return any(
        str(event.get("time", "~")) <= str(each.get("until", ""))
        and each.get("container") in (None, event.get("container"))
        for each in acknowledged
    )


def parsed(line: bytes) -> dict[str, Any]:
    """Return the event of a line, nothing where it is none of ours."""
    try:
        event = loads(line)
    except ValueError:
        return {}  # one that is being written, or that a full disk has cut
    return event if isinstance(event, dict) else {}


def trouble(settings: "dict[str, object]") -> str:
    """Say why the log of these settings cannot be written, and what comes of it; empty: it can.

    What only root can know is not said to others.
    """
    path = str(settings["log"])
    reason = _unwritable(path)
    if not reason:
        return ""
    deny = settings["on_error"] == "deny"
    then = "every container start is refused (on_error: deny)" if deny else "nothing is adjusted"
    return f"the log {path} cannot be written: {reason}; what is not logged is not done: {then}"


def _unwritable(path: str) -> str:
    directory = os.path.dirname(path)
    try:
        info = os.stat(directory)
    except FileNotFoundError:
        return f"the directory {directory} is not there"
    except OSError as error:
        return f"{directory}: {error.strerror}" if os.geteuid() == 0 else ""
    if not stat.S_ISDIR(info.st_mode):
        return f"{directory} is no directory"
    if info.st_uid not in {0, os.geteuid()} or info.st_mode & stat.S_IWOTH:
        return f"others than root may write the directory {directory}"
    if os.geteuid() != 0:
        return ""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        writable = os.access(directory, os.W_OK)
    except OSError as error:
        return str(error.strerror)
    else:
        if not stat.S_ISREG(there.st_mode):
            return "it is no regular file"
        writable = os.access(path, os.W_OK)
    return "" if writable else "its file system is read-only"
