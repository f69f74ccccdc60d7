"""The audit log as a file: one JSON document a line, whole or not at all.

Standard library only: the start path writes through here directly, everything else through
``shim.audit``, which renders the same lines with structlog.
"""

import errno
import fcntl
import os
import time

from shim import files
from shim.startjson import dumps, loads

DEFAULT = "/var/log/seccomp-shim/audit.jsonl"


_LOCK_SECONDS = 0.1


def timestamp() -> str:
    """Give the time now: RFC 3339, UTC, microseconds."""
    now = time.time_ns()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
    return f"{seconds}.{now % 1_000_000_000 // 1000:06d}Z"


def render(level: str, event: str, fields: dict[str, object]) -> bytes:
    """Make one line. JSON escapes every control character, so no name or path can forge another."""
    return dumps({"time": timestamp(), "level": level, "event": event, **fields}).encode() + b"\n"


def append(line: bytes, path: str) -> None:
    """Append ``line`` to the log at ``path``, whole or not at all; OSError says why not.

    The folder must be there: making it is the installation's work, and a missing one is a doubt.
    O_APPEND alone keeps writers apart, but a full disk cuts a write short: the lock lets that
    half line be removed before anybody writes behind it. Whoever may read the log can hold that
    lock, and a container's init may be waiting for us: it is waited for a moment only, and who
    keeps it longer has the lines written without it. A half line then stays on a full disk.
    """
    fd = files.open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW)
    try:
        locked = _lock(fd)
        size = os.fstat(fd).st_size
        try:
            written = os.write(fd, line)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        if written != len(line):
            if locked:
                os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(fd)


def tail(path: str, size: int = 1 << 20) -> "list[dict[str, object]]":
    """Give the lines in the last ``size`` bytes of the log, the newest last; none without a log.

    What is no line of ours is left out. OSError: there is a log, and it cannot be read.
    """
    try:
        fd = files.open_regular(path)
    except FileNotFoundError:
        return []
    with open(fd, "rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - size)
        file.seek(start)
        texts = file.read(size).split(b"\n")
    lines = []
    for text in texts[1:] if start else texts:
        try:
            line = loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _lock(fd: int) -> bool:
    """Lock the log for this line; False if somebody keeps it locked."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
