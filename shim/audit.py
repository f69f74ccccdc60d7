"""One schema for every adjustment, rendered by structlog; the start path's twin is shim.log.

A line has ``time``, ``level`` and ``event`` first, then what the event has of: ``mechanism``,
``process`` (``exec`` for one that joined a container), ``engine`` and ``file`` (whose
configuration was changed), ``container``, ``bundle``, ``runtime``, ``pid``, ``profile``,
``kernel``, ``state``, ``syscall``,
``before`` and ``after`` (the verdict for the call), ``length_before``, ``length_after`` (in
instructions), ``sha256_before``, ``sha256_after``, ``proof``, ``verified``, ``stops``,
``duration_ms``, ``reason``.
"""

import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from shim import config
from shim import log as journal
from shim.errors import ShimError
from shim.startjson import dumps

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger


def path(*, make: bool = True) -> str:
    """Return the log's path: the admin's for root, else one of the user's own.

    The user's directory is made for it where ``make`` is set.
    """
    if os.geteuid() == 0:
        return str(config.load()[0]["log"])
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    folder = os.path.join(state, "seccomp-shim")
    if make:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    return os.path.join(folder, "audit.jsonl")


def unverified(log: str | None = None) -> list[dict[str, Any]]:
    """Give the recent lines that say a container's filter is not what it should be, newest last.

    ShimError if there is a log and it cannot be read.
    """
    target = log or path()
    try:
        return [line for line in journal.tail(target) if line.get("verified") is False]
    except OSError as error:
        raise ShimError(f"cannot read: {error.strerror}", subject=target) from None


def record(
    event: str, *, level: str = "info", log: str | None = None, show: bool = True, **fields: object
) -> None:
    """Append one line to the log and, on a terminal, ``show`` it on standard error.

    ShimError if it cannot be written: the caller must not make the adjustment then.
    """
    target = log or path()
    line = logger(_Sink(target))
    try:
        getattr(line, level)(event, **fields)
    except OSError as error:
        raise ShimError(
            f"cannot log: {error.strerror}",
            subject=target,
            hint="what is not logged is not done; make the directory or free the disk",
        ) from None
    if show and sys.stderr.isatty():
        getattr(_console(sys.stderr), level)(event, **fields)


def logger(sink: Any) -> Any:
    """Give a structlog logger whose lines are those of ``shim.log.render``."""
    import structlog  # a tenth of a second, which who asks for the path alone need not wait

    return structlog.wrap_logger(
        sink,
        processors=[
            structlog.processors.add_log_level,
            _in_order,
            structlog.processors.JSONRenderer(serializer=lambda event, **_: dumps(event)),
        ],
        wrapper_class=structlog.BoundLogger,
    )


class _Sink:
    """Where structlog hands its finished line: the audit log."""

    def __init__(self, path: str) -> None:
        self.path = path

    def msg(self, line: str) -> None:
        journal.append(line.encode() + b"\n", self.path)

    info = warning = error = msg


def _in_order(_logger: "WrappedLogger", _method: str, event: "EventDict") -> "EventDict":
    head = {"time": journal.timestamp(), "level": event.pop("level"), "event": event.pop("event")}
    return {**head, **event}


def _console(stream: TextIO) -> Any:
    import structlog

    return structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[structlog.processors.add_log_level, structlog.dev.ConsoleRenderer()],
        wrapper_class=structlog.BoundLogger,
    )
