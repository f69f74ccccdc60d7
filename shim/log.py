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
    from collections.abc import Sequence
    from typing import Any

    from structlog.typing import EventDict, WrappedLogger

    # Bytes, and how many rotated logs stay; None: it is not rotated.
    Most = Sequence[int] | None

_LOCK_SECONDS = 0.1
_PENDING = ".pending-"
_LONGEST = 1 << 20
_TEXT = 4096
# An announcement that is no whole line by then never will be; nobody is at work for as long as the
# second, whoever has it locked.
_SETTLE_SECONDS = 60
_LIVING_SECONDS = 600


def timestamp() -> str:
    """Return the time now: RFC 3339, UTC, microseconds."""
    now = time.time_ns()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
    return f"{seconds}.{now % 1_000_000_000 // 1000:06d}Z"


def render(level: str, event: str, fields: "dict[str, object]") -> bytes:
    """Make one line. JSON escapes every control character, so no name or path can forge another."""
    line = _line({"time": timestamp(), "level": level, "event": event, **fields})
    return line.encode() + b"\n"


def _line(event: "dict[str, Any]") -> str:
    """Return the JSON of an event, no text in it longer than any that we make ourselves.

    What a config.json or a runtime says may come into a reason, and be of many megabytes.
    """
    line = dumps(event)
    return line if len(line) <= _TEXT else dumps(_cut(event))


def _cut(value: "Any") -> "Any":
    """Return the value with each text in it cut to what a line has room for."""
    if isinstance(value, str):
        return value if len(value) <= _TEXT else f"{value[:_TEXT]}... ({len(value)} characters)"
    if isinstance(value, dict):
        return {key: _cut(each) for key, each in value.items()}
    return [_cut(each) for each in value] if isinstance(value, list | tuple) else value


def append(line: bytes, path: str, most: "Most" = None) -> None:
    """Append ``line`` to the log at ``path``, whole or not at all; OSError says why not.

    The directory must be there: making it is the installation's work, and a missing one is a doubt.
    O_APPEND alone keeps writers apart, but a full disk cuts a write short: the lock lets that
    half line be removed before anybody writes behind it. Whoever may read the log can hold that
    lock, and a container's init may be waiting for us: it is waited for a moment only, and who
    keeps it longer has the lines written without it. A half line then stays on a full disk.
    A log that reaches ``most`` is rotated, and compressed by a process that nobody waits for.
    """
    for last in (False, False, True):
        fd = _open(path)
        try:
            locked = _lock(fd)
            info = os.fstat(fd)
            if not last and not _is_at(path, info):
                continue  # rotated since it was opened: the next one is the log
            _write(fd, line, path, info.st_size if locked else -1)
            if most and info.st_size + len(line) >= most[0]:
                from shim import rotation

                rotation.rotate(path, most)
            return
        finally:
            os.close(fd)


def announce(line: bytes, path: str) -> "tuple[int, str]":
    """Write ``line`` beside the log, where it stays until ``forget``; OSError says why not.

    It is of what is about to be done. The one line of what was done takes its place in the log
    then; but should we be killed in between, ``settle`` finds it, and puts it into the log. What
    cannot be logged must not be done: so the log has to be there, and room for the line. Returns
    what ``forget`` needs: the open file, whose lock says that we live, and its path. Whoever may
    read all of the directory can have that lock before us: he keeps us waiting no longer than for a
    line of the log itself.
    """
    os.close(_open(path))
    directory, name = os.path.split(path)
    pending = f"{directory}/{_PENDING}{name}-{os.getpid()}-{time.monotonic_ns():x}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(pending, flags, 0o600)
    try:
        if not _lock(fd):
            raise OSError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), pending)
        _write(fd, line, path, 0)
    except BaseException:  # a limit of our caller's may be reached here
        forget((fd, pending))
        raise
    return fd, pending


def forget(announced: "tuple[int, str]") -> None:
    """Remove what was announced: the log tells of it by now."""
    fd, pending = announced
    try:  # noqa: SIM105 - contextlib is an import that every container would pay for
        os.unlink(pending)
    except FileNotFoundError:
        pass
    os.close(fd)


def settle(path: str) -> int:
    """Put into the log what was announced by processes that were killed; return how many lines.

    OSError: it cannot be read or written.
    """
    directory, name = os.path.split(path)
    found = 0
    for each in os.listdir(directory):
        if not each.startswith(f"{_PENDING}{name}-"):
            continue
        pending = f"{directory}/{each}"
        try:
            fd = files.open_regular(pending, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue  # its writer was quicker, or it is none of ours
        try:
            found += _settle(fd, pending, path)
        finally:
            os.close(fd)
    return found


def _settle(fd: int, pending: str, path: str) -> bool:
    """Put one line into the log if its writer is gone, and it is one that we wrote."""
    info = os.fstat(fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if info.st_mtime > time.time() - _LIVING_SECONDS:
            return False
    if info.st_nlink != 1 or info.st_uid != os.geteuid() or info.st_mode & 0o077:
        return False
    line = os.read(fd, _LONGEST)
    whole = line[:10] == b'{"time": "' and line.find(b"\n") == len(line) - 1
    if whole:
        append(line, path)
    elif info.st_mtime > time.time() - _SETTLE_SECONDS:
        return False  # it is being written
    os.unlink(pending)
    return whole


def _open(path: str) -> int:
    """Open the log to append to it; a new one is its group's to read, whatever the umask."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
    try:
        return files.open_regular(path, flags)
    except FileNotFoundError:
        fd = files.open_regular(path, flags | os.O_CREAT)
        if os.fstat(fd).st_size == 0 and os.geteuid() == 0:
            os.fchmod(fd, 0o640)
        return fd


def _is_at(path: str, info: os.stat_result) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return (there.st_ino, there.st_dev) == (info.st_ino, info.st_dev)


def _write(fd: int, line: bytes, path: str, size: int) -> None:
    """Write ``line`` whole, or cut the file to ``size``, if that is known, and raise OSError."""
    try:
        written = os.write(fd, line)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    if written != len(line):
        if size >= 0:
            os.ftruncate(fd, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


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
    from shim import config

    target = log or path()
    most = config.load()[0]["log_max"]

    class Sink:
        """Where structlog hands its finished line. Here, so that no start pays for the class."""

        def msg(self, line: str) -> None:
            append(line.encode() + b"\n", target, most)

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
            structlog.processors.JSONRenderer(serializer=lambda event, **_: _line(event)),
        ],
        wrapper_class=structlog.BoundLogger,
    )


def _in_order(_logger: "WrappedLogger", _method: str, event: "EventDict") -> "EventDict":
    head = {"time": timestamp(), "level": event.pop("level"), "event": event.pop("event")}
    return {**head, **event}
