"""What the audit log says that went wrong lately."""

import json
import os
import time
from typing import Any

from shim import files

# Enough for some thousand lines; an older alarm is not recent on any host that logs more.
_TAIL = 2 * 1024 * 1024


def recent(log: str, seconds: float) -> list[dict[str, Any]]:
    """Give the lines of level error, or with ``verified`` false, of the last ``seconds``.

    A log that is not there has none. OSError: it cannot be read.
    """
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - seconds))
    try:
        fd = files.open_regular(log)
    except FileNotFoundError:
        return []
    with open(fd, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _TAIL))
        lines = file.read(_TAIL).split(b"\n")[1 if size > _TAIL else 0 :]
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # the line that is being written, or one that a full disk has cut
        alarming = isinstance(event, dict) and (
            event.get("level") == "error" or event.get("verified") is False
        )
        if alarming and str(event.get("time", "")) >= since:
            found.append(event)
    return found
