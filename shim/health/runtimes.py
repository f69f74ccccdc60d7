"""A container of runc's or crun's own: no image, no engine, one temporary directory."""

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from shim.engines import oci
from shim.errors import ShimError, printable
from shim.health.calls import Observation, observed

_END_SECONDS = 5
_LINE = b"ready\n"
# Few calls, so that most profiles let it run; it ends with its input, whatever becomes of us.
_ECHO = ["/usr/bin/cat"]


def observe(runtime: str, seccomp: dict[str, Any] | None, seconds: float) -> Observation:
    """Start a container under the flat profile ``seccomp`` and look at its filter.

    What has not started after ``seconds`` is killed.
    """
    prefix = "seccomp-shim-look-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        oci.bundle(directory, seccomp, _ECHO)
        try:
            return _observe(runtime, directory, time.monotonic() + seconds)
        except (OSError, ShimError) as error:
            return Observation(False, printable(str(error)), {})


def reason(said: str, code: int, *passing: str) -> str:
    """Return the last line that a program has said, if any, before it ended with ``code``.

    What is another one each time is left out: times, and the names in ``passing``.
    """
    lines = said.strip().splitlines() or [f"it ended with {code} and said nothing"]
    line = re.sub(r'^time=.* msg="(.*)"$', r"\1", lines[-1])
    for each in passing:
        line = line.replace(each, "...")
    return printable(line)[:300]


def _observe(runtime: str, directory: Path, deadline: float) -> Observation:
    ident = f"seccomp-shim-look-{uuid.uuid4().hex[:8]}"
    globally = ["--root", f"{directory}/state"]
    words = ["run", "--bundle", str(directory), "--pid-file", f"{directory}/pid", ident]
    errors = directory / "errors"
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, errors.open("wb") as file:
            process = subprocess.Popen(
                oci.command(runtime, *globally, *words),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=file,
                start_new_session=True,
            )
        try:
            if _echoes(ours, deadline):
                return observed(oci.read_pid(directory))
            late = time.monotonic() > deadline
        finally:
            ours.close()
            if _end(process) != 0:
                # The runtime has not come to do so itself.
                _delete(oci.command(runtime, *globally, "delete", "--force", ident))
    said = errors.read_text(encoding="utf-8", errors="replace")
    told = reason(said, process.returncode, str(directory), ident)
    return Observation(False, "it takes too long" if late else told, {})


def _echoes(ours: socket.socket, deadline: float) -> bool:
    """Tell whether the program in the container says what it is told, before the deadline."""
    heard = b""
    try:
        ours.sendall(_LINE)
        while len(heard) < len(_LINE):
            ours.settimeout(max(0.01, deadline - time.monotonic()))
            part = ours.recv(len(_LINE))
            if not part:
                break
            heard += part
    except OSError:
        pass  # nobody is there any more, or it is too late
    return heard == _LINE


def _end(process: "subprocess.Popen[bytes]") -> int:
    """Wait for the runtime to end, kill it and what it has started if not; give its code."""
    try:
        return process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _delete(command: list[str]) -> None:
    null = subprocess.DEVNULL
    with suppress(OSError):
        _end(
            subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)
        )
