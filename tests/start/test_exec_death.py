"""Whatever happens to the tracer of an exec: the process runs as it would have, or not at all."""

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import shim
from support import auditlog
from support.containers import DENIED, LET_THROUGH, TEST_SYSCALL, real
from support.joined import Joiner, outcomes

# In place of the wrapper: its Python part, and in the tracer a profiler that counts what it does to
# the outside, ptrace and file calls, and ends it before the one asked for. In the phase "serve" it
# is ended as it would let a thread of the runtime go on from a signal: the one by which Go hears of
# all that it waits for, since without most others the runtime comes to its end all the same. In the
# phase "begin" it is the process between the runtime and the tracer that is ended.
# What is announced is settled by whoever looks at the log next.
TOLD = {"adjusting", "adjusted"}
KILLING_WRAPPER = """#!/usr/bin/python3 -IS
import sys
sys.path.insert(0, "@PACKAGE_DIR@")
import os
container, phase, at, how, on_error, folder = sys.argv[1].split("|")
count = None
runtime = os.getpid()
def tasks(file, mark):
    folder = f"/proc/{runtime}/task"
    return [int(t) for t in os.listdir(folder) if mark in open(f"{folder}/{t}/{file}").read()]
def stop_poller():
    import ctypes
    while not (found := tasks("syscall", "281 ")):  # epoll_pwait
        pass
    ctypes.CDLL(None).syscall(234, runtime, found[0], 23)  # tgkill, SIGURG
    while not tasks("stat", ") t "):
        pass
BEGIN = {"open", "getppid", "fork", "write", "_exit"}
OPS = {"pread", "pwrite", "open", "read", "write", "close", "flock", "fstat", "alarm", "unlink"}
def profiler(frame, event, arg):
    global count
    code = frame.f_code
    if event == "call":
        if phase == "follow" and code.co_name == "_trace":
            count = 0
        if phase in ("rewrite", "serve") and code.co_qualname == "Memory.__init__":
            count = count or 0
        if phase == "serve" and code.co_qualname == "Swap.__init__":
            stop_poller()
    known = event == "call" and code.co_name == "ptrace"
    if phase == "begin":
        count = count or 0
        known = event == "c_call" and arg.__name__ in BEGIN and os.getppid() == runtime
        event = ""
    if phase == "serve":
        known = known and frame.f_back.f_back.f_code.co_name == "serve"
        event = ""
    if count is not None and (known or event == "c_call" and arg.__name__ in OPS):
        count += 1
        if count == int(at):
            sys.setprofile(None)
            open(f"{folder}/ended", "w").close()
            if how == "kill":
                os.kill(os.getpid(), 9)
            raise RuntimeError("ended by the test")
sys.setprofile(profiler)
from shim.start.wrapper.exec import run
try:
    from shim.config import DEFAULTS
    settings = {**DEFAULTS, "on_error": on_error, "log": f"{folder}/audit.jsonl"}
    calls = {"test_syscall": @TEST_SYSCALL@}
    run("@RUNTIME@", ["@RUNTIME@", *sys.argv[2:]], "", container, settings, calls)
except Exception as error:
    sys.stderr.write(f"refused: {error}")
    os._exit(1)
"""


@pytest.fixture
def joiner(tmp_path: Path) -> Joiner:
    """Return a directory with the killing wrapper; runc alone is followed."""
    joiner = Joiner(tmp_path, real("runc"))
    killing = tmp_path / "killing"
    text = KILLING_WRAPPER.replace("@PACKAGE_DIR@", str(Path(shim.__file__).parent.parent))
    killing.write_text(
        text.replace("@RUNTIME@", joiner.real).replace("@TEST_SYSCALL@", str(TEST_SYSCALL))
    )
    killing.chmod(0o755)
    return joiner


def end_at(joiner: Joiner, phase: str, step: int, how: str, on_error: str) -> bool:
    """Join a container with a tracer that ends before ``step``; tell whether it came so far."""
    folder = joiner.plain.folder.parent
    marker, log = folder / "ended", folder / "audit.jsonl"
    for path in (marker, log):
        path.unlink(missing_ok=True)
    end = "|".join((joiner.container.name, phase, str(step), how, on_error, str(folder)))
    _, *words = joiner.command("ID", *joiner.caller, plain=True)
    done = subprocess.run(
        [folder / "killing", end, *words],
        input="\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    where = f"{phase} step {step} by {how}, on_error {on_error}: {done.stderr}"
    if done.returncode == 0:
        seen = outcomes(done.stdout)
        if marker.exists() and on_error == "allow":
            assert seen in (DENIED, LET_THROUGH), where
        else:
            assert seen == LET_THROUGH, where
        if seen == LET_THROUGH:
            told = auditlog.told(log, joiner.container.name)
            assert TOLD.intersection(told), f"{where}: adjusted without a line"
    else:
        assert on_error == "deny", f"{where}: it did not run"
        assert done.stdout == "", where
    return marker.exists()


def follow_steps() -> Iterator[int]:
    """Return each of the first steps, then every 80th: one stop is like another."""
    return itertools.chain(range(1, 50), range(50, 3000, 80))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "raise"])
@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_ended_while_it_follows(joiner: Joiner, how: str, on_error: str) -> None:
    """Ended before the filter is found, it leaves a process as it was, or none."""
    with joiner.joinable() as container:
        reached = []
        for step in follow_steps():
            reached.append(end_at(joiner, "follow", step, how, on_error))
            if not reached[-1]:
                break
        assert reached[:40] == [True] * 40
        assert not reached[-1]
        assert container.outcomes() == DENIED  # the container has not noticed any of it


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_ended_as_soon_as_it_holds_the_runtime(joiner: Joiner, on_error: str) -> None:
    """Some of the first steps, killed: the process is as it was, or refused."""
    with joiner.joinable() as container:
        steps = (1, 2, 3, 5, 10, 20, 40)
        assert [end_at(joiner, "follow", step, "kill", on_error) for step in steps] == [True] * 7
        assert container.outcomes() == DENIED


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_ended_between_the_runtime_and_the_tracer(joiner: Joiner, on_error: str) -> None:
    """Nobody waits for what the process that forks the tracer had not said yet."""
    with joiner.joinable() as container:
        for step in itertools.count(1):
            if not end_at(joiner, "begin", step, "kill", on_error):
                break
        assert step == 3  # it forks the tracer and ends, and does nothing else
        assert container.outcomes() == DENIED


@pytest.mark.parametrize("how", ["kill", "raise"])
@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_ended_while_it_serves_the_runtime(joiner: Joiner, how: str, on_error: str) -> None:
    """A thread of the runtime that has stopped, and was about to be let on, does not stay so."""
    with joiner.joinable() as container:
        # The process that is followed may come to its next stop first, and be all that is seen.
        assert any(end_at(joiner, "serve", 1, how, on_error) for _ in range(20))
        assert container.outcomes() == DENIED


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "raise"])
@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_ended_at_every_step_of_the_rewrite(joiner: Joiner, how: str, on_error: str) -> None:
    """From finding the filter to letting go of everybody, each single step may be the last."""
    with joiner.joinable() as container:
        for step in itertools.count(1):
            if not end_at(joiner, "rewrite", step, how, on_error):
                break
        assert step > 20
        assert container.outcomes() == DENIED
