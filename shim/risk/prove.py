"""A real uretprobe on a process of our own, without the shim and with it: who lives.

The process calls a function of its C library over and over; the probe is on that function, in that
process alone. Nothing else on the host is touched, and nothing is left.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from shim import abi
from shim.bpf.program import allow
from shim.catalog import kernel_injected
from shim.engines import demonstration, oci
from shim.errors import ShimError
from shim.host import processes
from shim.host.libc import set_filter
from shim.risk import sides
from shim.risk.sides import Startable, Unasked
from shim.risk.uprobe import Uretprobe, function_offset

HITS = 25
_FUNCTION = "toupper"
_SECONDS = 60
# Leaves no core (PR_SET_DUMPABLE), says that it is ready, and ends by itself should we be gone.
_PAYLOAD = """
import ctypes, time
libc = ctypes.CDLL(None)
libc.prctl(4, 0, 0, 0, 0)
print("ready", flush=True)
end = time.monotonic() + 300
while time.monotonic() < end:
    libc.toupper(97)
    time.sleep(0.005)
"""


class Proof(NamedTuple):
    """How it ended: ``signal`` is what it died of, empty where it lived and all hits counted."""

    lived: bool
    signal: str
    hits: int
    by: str = ""  # the runtime that an engine started it by


def of_child(profile: dict[str, Any] | None) -> tuple[Proof, Proof]:
    """Probe a child under a flat profile: as it is, and with our allow in front."""
    from shim.profile import compile as compiler  # needs pyseccomp, as no container does

    program = compiler.program(profile)
    if not program:
        raise ShimError("the profile makes no filter: there is nothing to prove")
    uretprobe = kernel_injected()["uretprobe"].numbers["x86_64"]
    ours = allow(program, abi.AUDIT_ARCH_X86_64, uretprobe)
    return _of_child(program), _of_child(ours)


def _of_child(program: bytes) -> Proof:
    with subprocess.Popen(
        command(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: set_filter(program),  # noqa: PLW1509 - we have one thread
    ) as process:
        try:
            ready = False
            with suppress(TimeoutError):
                ready = oci.says_ready(process.stdout.fileno() if process.stdout else -1)
            if not ready:
                raise ShimError("no program runs under this profile")
            return probed(process.pid, lambda: _code(process.poll()))
        finally:
            process.kill()


def of_runtime(runtime: str, profile: dict[str, Any] | None) -> tuple[Proof, Proof]:
    """Probe a tiny container of a runtime: without the hook, and with it."""
    with tempfile.TemporaryDirectory(prefix="seccomp-shim-prove-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        hooks = demonstration.hooks(directory, directory / "audit.jsonl")
        return (
            _of_runtime(runtime, directory / "without", profile, {}),
            _of_runtime(runtime, directory / "with", profile, hooks),
        )


def _of_runtime(
    runtime: str, directory: Path, profile: dict[str, Any] | None, hooks: dict[str, Any]
) -> Proof:
    directory.mkdir()
    oci.bundle(directory, profile, command(), hooks=hooks)
    with oci.started(runtime, directory, f"seccomp-shim-prove-{uuid.uuid4().hex[:8]}") as process:
        pid = oci.wait_ready(process, directory)
        pinned = processes.pin(pid)
        try:
            return probed(pid, lambda: _code(process.poll()))
        finally:
            processes.kill(pinned)  # it is not the runtime that ends it, which is ended first
            os.close(pinned)


def of_engine(engine: str) -> tuple[Proof | Unasked, Proof | Unasked]:
    """Probe a container of an engine by its plain runtime, and one by ours in front of it."""
    try:
        with sides.of(engine) as (without, ours):
            return _of_engine(without), _of_engine(ours)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ShimError(f"{engine} gives no answer that can be understood: {error}") from None


def _of_engine(side: Startable | Unasked) -> Proof | Unasked:
    if isinstance(side, Unasked):
        return side
    with side.started(command=command()) as (pid, code):
        deadline = time.monotonic() + _SECONDS
        while not _is_ours(pid):  # its program may have begun just now
            if (ended := code()) is not None:
                raise ShimError(f"the container has ended at once, with exit status {ended}")
            if time.monotonic() > deadline:
                hint = "an engine of another host tells numbers of that one"
                raise ShimError("is not the container's program", subject=str(pid), hint=hint)
            time.sleep(0.02)
        return probed(pid, code)._replace(by=side.by)


def command() -> list[str]:
    """Return the command of what is probed."""
    return [os.path.realpath(sys.executable), "-IS", "-c", _PAYLOAD]


def probed(pid: int, code: Callable[[], int | None]) -> Proof:
    """Put a uretprobe on ``pid`` until it has died of it or enough hits were counted.

    ``code`` gives the process's exit status, 128 and the number of its signal; None: it runs.
    """
    try:
        ended, hits = _watched(pid, code)
    except ProcessLookupError:
        # The breakpoint is there before the event is: it has died of it before anything counts.
        ended, hits = _end(pid, code), 0
    if ended is None:
        return Proof(True, "", hits)
    name = signal.Signals(ended - 128).name if ended > 128 else f"exit status {ended}"
    return Proof(False, name, hits)


def _watched(pid: int, code: Callable[[], int | None]) -> tuple[int | None, int]:
    """Probe until the end, or until there are hits enough; ProcessLookupError: it has ended."""
    with _attached(pid) as probe:
        deadline = time.monotonic() + _SECONDS
        while (ended := code()) is None and probe.hits() < HITS:
            if time.monotonic() > deadline:
                raise ShimError("the probe was not hit in time", subject=str(pid))
            time.sleep(0.01)
        return ended, probe.hits()


def _end(pid: int, code: Callable[[], int | None]) -> int:
    """Return how a process that has ended did."""
    deadline = time.monotonic() + _SECONDS
    while (ended := code()) is None:
        if time.monotonic() > deadline:
            raise ShimError("has ended, and nobody tells how", subject=str(pid))
        time.sleep(0.01)
    return ended


@contextmanager
def _attached(pid: int) -> Iterator[Uretprobe]:
    library = _libc(pid)
    if not library:
        raise ShimError("has no C library to probe", subject=str(pid))
    offset = function_offset(Path(library), _FUNCTION)
    probe = Uretprobe(Path(library), offset, pid)
    try:
        yield probe
    finally:
        probe.close()


def _is_ours(pid: int) -> bool:
    """Tell whether a process runs our program: a probe would kill whoever else has the number."""
    with suppress(OSError):
        return _PAYLOAD in processes.command_line(pid) and bool(_libc(pid))
    return False


def _libc(pid: int) -> str:
    """Return a path to the C library that a process has mapped, in whatever root it is."""
    for mapping in processes.code_mappings(pid):
        if os.path.basename(os.readlink(mapping)).startswith("libc.so"):
            return mapping
    return ""


def _code(returned: int | None) -> int | None:
    """Return Popen's return code as a shell tells it."""
    return returned if returned is None or returned >= 0 else 128 - returned
