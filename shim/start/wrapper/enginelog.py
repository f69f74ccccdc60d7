"""The log file that an engine gives its runtime: there it looks for what went wrong."""

from shim import lightos as os
from shim import log
from shim.errors import printable


def tell(options: "dict[str, str]", level: str, message: str) -> None:
    """Write ``message`` where the runtime would, by its ``log`` and ``log-format`` options.

    Without ``log`` that is nowhere; a file that cannot be written is passed over, since the audit
    log has it too.
    """
    path = options.get("log", "")
    kind = path.partition(":")[0]  # crun takes the names of other logs, too
    if not path or kind in ("journald", "syslog"):
        return
    path = path.removeprefix("file:")
    if options.get("log-format") == "json":
        from shim.startjson import dumps

        document = {"level": level, "msg": f"seccomp-shim: {message}"}
        line = dumps({**document, "time": log.timestamp()})
    else:
        text = printable(message).replace("\\", "\\\\").replace('"', '\\"')
        line = f'time="{log.timestamp()}" level={level} msg="seccomp-shim: {text}"'
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, 0o644)
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)
    except OSError:
        pass
