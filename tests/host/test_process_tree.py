"""Following a program and all that it starts: it must not notice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shim import abi
from shim.host.process_tree import Family
from shim.host.ptrace import EndedError, wait_for
from support import need

# Forks, threads, a vfork with an exec, signals with handlers, a child that stops and goes on, and
# exit statuses of all kinds: prints what it saw of them.
BUSY = """
import json, os, signal, subprocess, sys, threading, time
seen = {}
got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append("usr1"))
signal.signal(signal.SIGCHLD, lambda *_: got.append("chld"))
os.kill(os.getpid(), signal.SIGUSR1)
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
    os.read(reader, 1)
    os._exit(7)
_, status = os.waitpid(child, os.WUNTRACED)
seen["stopped"] = os.WIFSTOPPED(status) and os.WSTOPSIG(status)
time.sleep(0.1)
seen["still stopped"] = os.waitpid(child, os.WNOHANG | os.WCONTINUED)[0] == 0
os.kill(child, signal.SIGCONT)
_, status = os.waitpid(child, os.WCONTINUED)
seen["continued"] = os.WIFCONTINUED(status)
os.write(writer, b"x")
seen["code"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(1)
seen["signal"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(20)]
for each in threads:
    each.start()
for each in threads:
    each.join()
seen["output"] = subprocess.run(["echo", "x"], capture_output=True, text=True).stdout
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    seen["no child left"] = True
seen["usr1"], seen["chld"] = got.count("usr1"), got.count("chld") > 0
print(json.dumps(seen))
sys.exit(3)
"""
SEEN = {
    "stopped": 19, "still stopped": True, "continued": True, "code": 7, "signal": -15,
    "output": "x\n", "no child left": True, "usr1": 1, "chld": True,
}  # fmt: skip


def traced(program: str, follow: Callable[[Family], Any], options: int = 0) -> Any:
    """Run Python ``program`` with a tracer beside it that does ``follow``.

    Gives the program's exit status and output, and what the tracer gave, as JSON has it.
    """
    need.root()
    go, told = os.pipe(), os.pipe()
    waiting = f"import os\nos.read({go[0]}, 1)\n{program}"
    process = subprocess.Popen(
        [sys.executable, "-IS", "-c", waiting], stdout=subprocess.PIPE, pass_fds=[go[0]]
    )
    tracer = os.fork()
    if tracer == 0:
        try:
            signal.alarm(30)  # one that waits for ever ends, without an answer
            family = Family(process.pid, options)
            os.write(go[1], b"g")
            os.write(told[1], json.dumps(follow(family)).encode())
        finally:
            os._exit(0)
    os.close(told[1])
    with open(told[0]) as pipe:
        answer = json.loads(pipe.read() or "null")
    os.waitpid(tracer, 0)
    output, _ = process.communicate(timeout=30)
    for end in go:
        os.close(end)
    return process.returncode, output.decode(), answer


def to_the_end(family: Family) -> str:
    """Follow until there is nobody left."""
    try:
        while True:
            family.serve(*family.wait())
    except EndedError as end:
        return str(end)


def test_a_busy_program_sees_nothing_of_it() -> None:
    """Stops, signals, exit statuses, threads and children are to it as they would be without us."""
    code, output, answer = traced(BUSY, to_the_end)
    assert code == 3
    assert json.loads(output) == SEEN
    assert "ended before anything loaded" in answer


def release_after(stops: int) -> Callable[[Family], str]:
    """Return what follows for so many stops, lets all go, and then ends."""

    def follow(family: Family) -> str:
        try:
            for _ in range(stops):
                family.serve(*family.wait())
        except EndedError:
            pass
        family.release()
        return "released"

    return follow


@pytest.mark.parametrize("stops", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 30, 40, 60, 80])
def test_released_at_any_moment_they_go_on(stops: int) -> None:
    """Whoever is born, stopped or ending at that moment: nobody dies with the tracer any more."""
    code, output, answer = traced(BUSY, release_after(stops), abi.PTRACE_O_EXITKILL)
    assert answer == "released"
    assert code == 3
    assert json.loads(output) == SEEN


@pytest.mark.parametrize("stops", [0, 1, 2, 5, 10, 20, 40, 60])
def test_an_interrupted_tracer_lets_go_of_whom_it_was_about_to_serve(stops: int) -> None:
    """Who has stopped and been waited for tells of no stop again, and is let go all the same."""

    def follow(family: Family) -> str:
        for _ in range(stops):
            family.serve(*family.wait())
        family.wait()  # what would serve it is kept from that
        family.release()
        return "released"

    code, output, answer = traced(BUSY, follow, abi.PTRACE_O_EXITKILL)
    assert answer == "released"
    assert code == 3
    assert json.loads(output) == SEEN


def test_a_signal_that_was_not_served_arrives() -> None:
    """The one signal that ends a child is seen, is not handed on, and ends it after the release."""

    def follow(family: Family) -> str:
        while (seen := family.wait())[1] >> 8 != signal.SIGTERM:
            family.serve(*seen)
        family.release()
        return "released"

    code, output, answer = traced(BUSY, follow, abi.PTRACE_O_EXITKILL)
    assert answer == "released"
    assert (code, json.loads(output)) == (3, SEEN)


def test_a_stop_that_nobody_knows_of_ends_with_the_time_for_it() -> None:
    """Where even what waitpid() gave was lost, as to an alarm, the stopped thread is let go."""

    def follow(family: Family) -> str:
        for _ in range(10):
            family.serve(*family.wait())
        wait_for(-1)
        family.release(seconds=0.3)
        return "released"

    code, _, answer = traced(BUSY, follow, abi.PTRACE_O_EXITKILL)
    assert (code, answer) == (3, "released")


def test_one_that_does_not_stop_is_waited_for_with_a_limit() -> None:
    """A thread in vfork() stops for nobody: that is told, and it stays one of those held."""
    vforked = (
        "import ctypes; libc = ctypes.CDLL(None)\nif libc.vfork() == 0: libc.poll(None, 0, {})"
    )

    def follow(family: Family) -> list[object]:
        while (seen := family.wait())[1] >> 16 != abi.PTRACE_EVENT_VFORK:
            family.serve(*seen)
        family.serve(*seen)
        try:
            family.release(seconds=0.3)
        except TimeoutError as error:
            return [str(error), family.members == {family.root}]
        return ["released"]

    program = vforked.format(600) + "; libc._exit(0)"
    _, _, answer = traced(program, follow)
    assert answer == ["some threads of the runtime do not stop, and cannot be let go", True]


def test_a_thread_that_executes_a_program_goes_on_as_the_process() -> None:
    """Its own number is nobody's any more, and nothing is waited for under it."""
    program = (
        "import os, sys, threading, time\n"
        "run = [sys.executable, '-c', 'raise SystemExit(4)']\n"
        "threading.Thread(target=os.execv, args=(run[0], run)).start()\n"
        "time.sleep(20)"
    )

    def follow(family: Family) -> bool:
        while (seen := family.wait())[1] >> 16 != abi.PTRACE_EVENT_EXEC:
            family.serve(*seen)
        family.serve(*seen)
        return family.members == {family.root}

    assert traced(program, follow) == (4, "", True)


# A program whose grandchild, made by a clone within a clone, starts threads of its own.
NESTED = """
import os, threading, time
threading.Thread(target=time.sleep, args=(0.01,)).start()
if os.fork() == 0:
    if os.fork() == 0:
        threading.Thread(target=time.sleep, args=(0.01,)).start()
        time.sleep(0.05)
        os.write(1, b"%d " % os.getpid())
        os._exit(0)
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
os.wait()
"""


def test_the_first_child_with_threads_is_found() -> None:
    """Neither the program's own threads nor children without threads are taken for it."""

    def follow(family: Family) -> list[int]:
        member = family.threaded_child(lambda _pid: True)
        tasks = len(list(Path(f"/proc/{member.pid}/task").iterdir()))
        member.detach()
        return [member.pid, tasks]

    code, output, (pid, tasks) = traced(NESTED, follow)
    assert (code, int(output)) == (0, pid)
    assert tasks == 2


def test_without_such_a_child_the_end_is_told() -> None:
    """A program that starts nothing of the kind ends as always."""

    def follow(family: Family) -> str:
        try:
            family.threaded_child(lambda _pid: True)
        except EndedError as end:
            return str(end)
        return "found"

    code, _, answer = traced("import os\nif os.fork() == 0: os._exit(0)\nos.wait()", follow)
    assert code == 0
    assert "ended before anything loaded" in answer


def test_a_tracer_that_is_killed_leaves_all_running() -> None:
    """SIGKILL in the middle of it: the program goes on as if nobody had looked."""

    def follow(family: Family) -> None:
        for _ in range(25):
            family.serve(*family.wait())
        os.kill(os.getpid(), 9)

    started = time.monotonic()
    code, output, answer = traced(BUSY, follow)
    assert (code, answer) == (3, None)
    assert json.loads(output) == SEEN
    assert time.monotonic() - started < 30
