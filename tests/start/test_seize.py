"""Holding a container's init: what does not stop is waited for with a limit."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shim.config import DEFAULTS
from shim.host import processes
from shim.host.ptrace import Tracee
from shim.start.inject import tracer
from shim.start.session import Start
from support import need
from support.containers import TEST_SYSCALL
from support.lookers import looked_at

# Its only thread waits in vfork() for a child that goes on to no program of its own.
VFORKED = """
import ctypes
libc = ctypes.CDLL(None)
print("ready", flush=True)
if libc.vfork() == 0:
    libc.poll(None, 0, 30000)
    libc._exit(0)
"""


def in_a_tracer(work: Callable[[], object]) -> object:
    """Do ``work`` in a process that bears a tracer's name; give what it returned, as JSON."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            Path("/proc/self/comm").write_text(f"{processes.TRACER}test")
            signal.alarm(30)  # one that waits for ever ends, without an answer
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        answer = json.loads(pipe.read() or "null")
    os.waitpid(child, 0)
    return answer


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_an_init_that_does_not_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_error: str
) -> None:
    """The runtime is told so in time; the init goes on as it was, or ends where that is chosen."""
    need.root()
    monkeypatch.setattr(tracer, "_SEIZE_SECONDS", 1)
    command = [sys.executable, "-IS", "-c", VFORKED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as init:
        assert init.stdout is not None
        init.stdout.readline()
        pinned = processes.pin(init.pid)
        while processes.status(pinned, ("State",))["State"][0] != "D":
            pass  # it has said so just before it calls vfork()
        said: list[str] = []

        def work() -> object:
            start = Start(DEFAULTS | {"on_error": on_error, "log": str(tmp_path / "audit.jsonl")})
            start.pid, start.pinned = init.pid, pinned
            return [tracer.trace(start, {"test_syscall": TEST_SYSCALL}, said.append), *said]

        try:
            why = "cannot trace the container's init: it does not stop within 1 seconds"
            assert in_a_tracer(work) == [1, why]
            if on_error == "deny":
                assert init.wait(20) == -signal.SIGKILL
            else:
                assert init.poll() is None
        finally:
            os.killpg(init.pid, signal.SIGKILL)


def test_who_holds_a_process_is_not_another_that_does() -> None:
    """A tracer that could not do its work does not take itself for the one that does it."""
    need.root()
    with subprocess.Popen(["sleep", "60"]) as process:

        def work() -> object:
            pinned = processes.pin(process.pid)
            Tracee(process.pid)
            other = in_a_tracer(lambda: processes.held_by_us(pinned))
            return [processes.held_by_us(pinned), other]

        try:
            assert in_a_tracer(work) == [False, True]
        finally:
            process.kill()


def test_who_looks_at_an_init_is_waited_for() -> None:
    """A scan's look, which ends at once, keeps no container from its adjustment."""
    need.root()
    with subprocess.Popen(["sleep", "60"]) as process, looked_at(process.pid):

        def work() -> object:
            start = Start(DEFAULTS)
            start.pid, start.pinned = process.pid, processes.pin(process.pid)
            for _ in range(200):
                tracer._seized(start, 0).detach()
            return "seized"

        assert in_a_tracer(work) == "seized"
        process.kill()


def test_who_keeps_an_init_is_told() -> None:
    """A debugger's process is not waited for without end, and stays the debugger's."""
    need.root()
    with subprocess.Popen(["sleep", "60"]) as process:

        def work() -> object:
            Tracee(process.pid)

            def start_of_another() -> object:
                start = Start(DEFAULTS)
                start.pid, start.pinned = process.pid, processes.pin(process.pid)
                Path("/proc/self/comm").write_text("another")
                try:
                    tracer._seized(start, 0)
                except PermissionError as error:
                    return str(error)
                return ""

            Path("/proc/self/comm").write_text("debugger")
            return [in_a_tracer(start_of_another), processes.tracer_of(process.pid) == os.getpid()]

        try:
            said = f"[Errno 1] ptrace 0x4206 of {process.pid}: Operation not permitted"
            assert in_a_tracer(work) == [said, True]
        finally:
            process.kill()
