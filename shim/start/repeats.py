"""Execs that are adjusted like the one before them, counted instead of written.

A health check joins its container every second, and each time the same is done for it. With
``log_repeats: count`` the first one is written, and of those that follow one line tells how many
they were: in an hour, in a thousand, or when something about them changes. Until then the number is
kept in a directory of ours that does not outlive the boot.
"""

import fcntl
import time

from shim import files, log, runtime_directory
from shim import lightos as os
from shim.start.digest import sha256
from shim.startjson import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DIRECTORY = "repeats"
_SECONDS, _MOST = 3600, 1000
_BYTES = 1 << 14
# An exec looks at no more of the others' numbers than this, and a container goes on meanwhile.
_OTHERS = 50
# What differs from one exec to the next of the same kind. runc makes the instructions of a filter
# in one order or another.
_OWN = frozenset(("pid", "stops", "rewrite_ms", "duration_ms", "sha256_before", "sha256_after"))
_TOLD = ("mechanism", "process", "container", "runtime", "syscall")


def counted(facts: "dict[str, Any]", path: str, most: "log.Most") -> bool:
    """Tell whether this exec is like the one before it, and counted; else it is to be written.

    OSError: what had been counted cannot be written to the log at ``path``.
    """
    directory, _ = runtime_directory.directory(_DIRECTORY)
    if directory < 0:
        return False
    try:
        same = {key: value for key, value in facts.items() if key not in _OWN}
        return _counted(directory, same, path, most)
    except OSError as error:
        if error.filename == path:
            raise
        return False  # the number cannot be kept
    finally:
        os.close(directory)


def _counted(directory: int, same: "dict[str, Any]", path: str, most: "log.Most") -> bool:
    name = sha256(dumps([same.get("container"), path]).encode())
    fd = _opened(directory, name)
    if fd < 0:
        return False
    try:
        kept = _read(fd)
        now = time.time()
        kind = sha256(dumps(same).encode())
        new = {"kind": kind, "count": 0, "since": now, "log": path}
        new["told"] = {key: same[key] for key in _TOLD if key in same}
        if not kept:
            _write(fd, new)
            _tell_old(directory, _some(directory), path, most, now)
            return False
        if kept["kind"] != kind:
            _tell(kept, most)
            _write(fd, new)
            return False
        kept["count"] += 1
        if kept["count"] >= _MOST or now - kept["since"] >= _SECONDS:
            _tell(kept, most)
            kept = new
        _write(fd, kept)
        return True
    finally:
        os.close(fd)


def settle(path: str, most: "log.Most") -> None:
    """Write what has been counted for the log at ``path``; OSError: it cannot be written."""
    directory, _ = runtime_directory.directory(_DIRECTORY)
    if directory >= 0:
        try:
            _tell_old(directory, os.listdir(directory), path, most, time.time() + _SECONDS)
        finally:
            os.close(directory)


def _some(directory: int) -> "list[str]":
    """Return the names of some numbers; others each time, so that each has its turn."""
    names = os.listdir(directory)
    begin = time.monotonic_ns() % (len(names) or 1)
    return (names[begin:] + names[:begin])[:_OTHERS]


def _tell_old(directory: int, names: "list[str]", path: str, most: "log.Most", now: float) -> None:
    """Write what was counted an hour ago and not told: most often of containers that have ended."""
    for name in names:
        fd = _opened(directory, name, make=False)
        if fd < 0:
            continue
        try:
            kept = _read(fd)
            if kept and kept["log"] == path and now - kept["since"] >= _SECONDS:
                _tell(kept, most)
                os.unlink(name, dir_fd=directory)
        finally:
            os.close(fd)


def _opened(directory: int, name: str, *, make: bool = True) -> int:
    """Open and lock a number; -1 where another exec has it, or it cannot be made."""
    flags = os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
    try:
        fd = files.open_regular(name, flags, dir_fd=directory)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink:
            return fd
    except OSError:
        pass
    os.close(fd)
    return -1


def _read(fd: int) -> "dict[str, Any]":
    """Return what is kept, nothing where it is new or was cut by a kill."""
    try:
        kept = loads(os.pread(fd, _BYTES, 0))
        return kept if kept["count"] >= 0 and kept.keys() >= {"kind", "since", "log"} else {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(fd: int, kept: "dict[str, Any]") -> None:
    data = dumps(kept).encode()
    os.pwrite(fd, data, 0)
    os.ftruncate(fd, len(data))


def _tell(kept: "dict[str, Any]", most: "log.Most") -> None:
    if kept["count"]:
        facts = {**kept["told"], "repeats": kept["count"]}
        log.append(log.render("info", "repeated", facts), kept["log"], most)
