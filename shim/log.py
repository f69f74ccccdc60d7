"""The audit log: one JSON document a line, whole or not at all, by one schema.

A line has ``time``, ``level`` and ``event`` first, then what the event has of: ``mechanism``,
``process`` (``exec`` for one that joined a container), ``engine`` and ``file`` (whose
configuration was changed), ``container``, ``bundle``, ``runtime``, ``pid``, ``profile``,
``kernel``, ``state``, ``syscall``,
``before`` and ``after`` (the verdict for the call), ``length_before``, ``length_after`` (in
instructions), ``sha256_before``, ``sha256_after``, ``proof``, ``verified``, ``stops``,
``duration_ms``, ``reason``.

The container start path imports this module and writes with ``render`` and ``append``, which need
the standard library alone. A verb writes with ``record``, which renders the same lines by
structlog.
"""

import errno
import fcntl
import time

from shim import files
from shim import lightos as os
from shim.errors import ShimError
from shim.startjson import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

    from structlog.typing import EventDict, WrappedLogger

_LOCK_SECONDS = 0.1
# More than a day of any host that starts ten containers a minute.
_LIMIT = 64 << 20
_CHUNK = 1 << 20


def timestamp() -> str:
    """Return the time now: RFC 3339, UTC, microseconds."""
    now = time.time_ns()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
    return f"{seconds}.{now % 1_000_000_000 // 1000:06d}Z"


def render(level: str, event: str, fields: "dict[str, object]") -> bytes:
    """Make one line. JSON escapes every control character, so no name or path can forge another."""
    return dumps({"time": timestamp(), "level": level, "event": event, **fields}).encode() + b"\n"


def append(line: bytes, path: str) -> None:
    """Append ``line`` to the log at ``path``, whole or not at all; OSError says why not.

    The directory must be there: making it is the installation's work, and a missing one is a doubt.
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


def path(*, make: bool = True) -> str:
    """Return the log's path: the admin's for root, else one of the user's own.

    The user's directory is made for it where ``make`` is set.
    """
    if os.geteuid() == 0:
        from shim import config

        return str(config.load()[0]["log"])
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    directory = os.path.join(state, "seccomp-shim")
    if make:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    return os.path.join(directory, "audit.jsonl")


def record(
    event: str,
    *,
    level: str = "info",
    log: "str | None" = None,
    **fields: object,
) -> None:
    """Append one line to the log; what is to be shown of it is the verb's own to say.

    ShimError if it cannot be written: the caller must not make the adjustment then.
    """
    target = log or path()

    class Sink:
        """Where structlog hands its finished line. Here, so that no start pays for the class."""

        def msg(self, line: str) -> None:
            append(line.encode() + b"\n", target)

        info = warning = error = msg

    line = logger(Sink())
    try:
        getattr(line, level)(event, **fields)
    except OSError as error:
        raise ShimError(
            f"cannot log: {error.strerror}",
            subject=target,
            hint="what is not logged is not done; make the directory or free the disk",
        ) from None


def logger(sink: "Any") -> "Any":
    """Return a structlog logger whose lines are those of ``render``."""
    import structlog  # a tenth of a second, which who only asks for the path need not wait

    return structlog.wrap_logger(
        sink,
        processors=[
            structlog.processors.add_log_level,
            _in_order,
            structlog.processors.JSONRenderer(serializer=lambda event, **_: dumps(event)),
        ],
        wrapper_class=structlog.BoundLogger,
    )


def _in_order(_logger: "WrappedLogger", _method: str, event: "EventDict") -> "EventDict":
    head = {"time": timestamp(), "level": event.pop("level"), "event": event.pop("event")}
    return {**head, **event}


class Recent:
    """What went wrong, the oldest first; ``since`` is the time from which on all was read."""

    __slots__ = ("events", "since", "whole")

    def __init__(self, events: "list[dict[str, Any]]", since: str, whole: bool) -> None:
        self.events = events
        self.since = since
        self.whole = whole


def recent(log: str, seconds: float) -> Recent:
    """Return the lines of level error, or with ``verified`` false, of the last ``seconds``.

    They are read from the end, what was rotated away last included, 64 MiB at most: ``whole`` tells
    whether that was enough. A log that is not there has none. OSError: it cannot be read.
    """
    return lately(_backwards(log), seconds, _LIMIT)


def lately(lines: "Iterator[bytes]", seconds: float, limit: int) -> Recent:
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


def _backwards(log: str) -> "Iterator[bytes]":
    """Return the lines of the log and of the one rotated away before it, the newest first."""
    import glob

    rotated = [each for each in glob.glob(f"{glob.escape(log)}[.-]*") if not each.endswith(".gz")]
    for each in [log, *sorted(rotated, key=os.path.getmtime)[-1:]]:
        try:
            fd = files.open_regular(each)
        except FileNotFoundError:
            continue
        with open(fd, "rb") as file:
            yield from backwards(file, _LIMIT)


def backwards(file: "BinaryIO", limit: int) -> "Iterator[bytes]":
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


def _parsed(line: bytes) -> "dict[str, Any]":
    try:
        event = loads(line)
    except ValueError:
        return {}  # one that is being written, or that a full disk has cut
    return event if isinstance(event, dict) else {}
