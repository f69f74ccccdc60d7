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
structlog. ``shim.logread`` reads them.
"""

import errno
import fcntl
import time

from shim import files
from shim import lightos as os
from shim.errors import ShimError
from shim.startjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from structlog.typing import EventDict, WrappedLogger

_LOCK_SECONDS = 0.1


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
