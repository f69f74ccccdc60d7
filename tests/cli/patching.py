"""The verb patch, run as an admin runs it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli import runtimes
from support.profiles import DOCKER, LAYOUTS

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
# A crun, since the profiles here are too small not to need another rule for runc.
ALWAYS = ("--when", "always", "--runtime", runtimes.KNOWING)
BEFORE = LAYOUTS["tabs"](DOCKER)


def logged(log: Path) -> list[dict[str, Any]]:
    """Return the lines of the audit log."""
    return [
        json.loads(line)
        for path in log.rglob("audit.jsonl")
        for line in path.open(encoding="utf-8")
    ]


def refused(result: "subprocess.CompletedProcess[bytes]") -> str:
    """See that the program ended with one line of error, exit status 2; give the line."""
    assert result.returncode == 2
    assert result.stdout == b""
    [line] = result.stderr.decode().splitlines()
    assert line.startswith("seccomp-shim patch: ")
    return line.removeprefix("seccomp-shim patch: ")
