"""Reading the filters of live processes: all of them, of those that are meant, without a trace."""

import ctypes
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from mmap import mmap
from pathlib import Path

import pytest

from risk.processes import filtered
from shim import abi
from shim.bpf.program import RET_K, answering, encode
from shim.host import libc, processes
from shim.host.ptrace import Tracee
from shim.risk import live_filters, live_filters_child
from shim.risk.verdict import lets_through, verdicts
from support import need
from support.filters import in_child
from support.lookers import looked_at

X86 = abi.AUDIT_ARCH_X86_64
ALLOW = (RET_K, 0, 0, abi.SECCOMP_RET_ALLOW)
NR = 400


def answer(value: int, nr: int = NR) -> bytes:
    """Return a filter that answers ``value`` to one number."""
    return encode([*answering(X86, nr, value), ALLOW])


DENY = answer(abi.SECCOMP_RET_ERRNO | 1)
KILL = answer(abi.SECCOMP_RET_KILL_PROCESS)


def field(pid: int, name: str) -> str:
    """Return a field of /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(
        line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(f"{name}:")
    )


def seen(pid: int) -> live_filters.Process:
    """Read one process, which is there: on a machine so busy that it is late, once more."""
    for _ in range(5):
        found = live_filters.read_one(pid)
        if found and "in time" not in found.unread + found.partly:
            break
    assert found is not None
    return found


def test_all_filters_are_read_and_the_strictest_verdict_counts() -> None:
    """Filters stack: each is read, the newest first, and the kernel's order of actions decides."""
    with filtered(KILL, answer(abi.SECCOMP_RET_LOG), DENY) as pid:
        found = seen(pid)
        [only] = found.sets
        assert only.programs == (DENY, answer(abi.SECCOMP_RET_LOG), KILL)
        assert verdicts(only.programs, NR) == {abi.SECCOMP_RET_KILL_PROCESS}
        assert lets_through(only.programs, NR + 1)
        assert (found.mode, found.threads, found.unread, found.partly) == (2, 1, "", "")
        assert len(found.stopped) == 1
        assert field(pid, "TracerPid") == "0"


def test_a_process_without_a_filter_is_not_stopped() -> None:
    """Who has no filter is told as such, and never touched."""
    with filtered() as pid:
        found = seen(pid)
        assert (found.mode, found.sets, found.stopped) == (0, (), ())


def test_what_a_listener_decides_is_told() -> None:
    """A filter with a listener can be read as any other, and its verdict is the listener's."""

    def listening() -> None:
        libc.set_filter(answer(abi.SECCOMP_RET_USER_NOTIF), abi.SECCOMP_FILTER_FLAG_NEW_LISTENER)
        ready.set()
        signal.pause()

    class Ready:
        def set(self) -> None:
            os.write(writer, b"1")

    ready, (reader, writer) = Ready(), os.pipe()
    with filtered(then=listening) as pid:
        os.read(reader, 1)
        [only] = seen(pid).sets
        assert verdicts(only.programs, NR) == {abi.SECCOMP_RET_USER_NOTIF}
    os.close(reader)
    os.close(writer)


def test_threads_of_one_process_may_differ() -> None:
    """Each thread's filters are its own: all of them are told, those without any too."""

    def several() -> None:
        def thread(program: bytes) -> None:
            libc.set_filter(program)
            os.write(writer, b"1")
            signal.pause()

        for program in (DENY, DENY, KILL):
            threading.Thread(target=thread, args=(program,), daemon=True).start()
        signal.pause()

    reader, writer = os.pipe()
    with filtered(then=several) as pid:
        for _ in range(3):
            os.read(reader, 1)
        found = seen(pid)
        assert {each.programs: each.threads for each in found.sets} == {
            (): 1,
            (DENY,): 2,
            (KILL,): 1,
        }
        assert found.threads == 4
    os.close(reader)
    os.close(writer)


def test_of_very_many_threads_it_is_told_how_many_were_not_read() -> None:
    """Where threads are only counted, the answer says so; one with another number is read."""

    def many() -> None:
        def thread(*programs: bytes) -> None:
            for program in programs:
                libc.set_filter(program)
            os.write(writer, b"1")
            signal.pause()

        for number in range(40):
            extra = (KILL,) if number == 39 else ()
            threading.Thread(target=thread, args=extra, daemon=True).start()
        signal.pause()

    reader, writer = os.pipe()
    with filtered(DENY, then=many) as pid:
        for _ in range(40):
            os.read(reader, 1)
        found = seen(pid)
        assert {each.programs for each in found.sets} == {(DENY,), (KILL, DENY)}
        assert "threads have as many filters, and were not read" in found.partly
    os.close(reader)
    os.close(writer)


def test_another_look_at_the_same_time_is_waited_for() -> None:
    """A scan beside a scan reads what it reads alone: the other is no debugger, no ban."""
    with filtered(DENY) as pid, looked_at(pid):
        for _ in range(100):
            found = seen(pid)
            assert (found.unread, [each.programs for each in found.sets]) == ("", [(DENY,)])


def test_a_traced_process_is_left_to_its_tracer() -> None:
    """Who is traced already is not touched, and it is told who traces it."""
    with filtered(DENY) as pid:
        tracee = Tracee(pid)
        found = seen(pid)
        assert (found.sets, found.stopped) == ((), ())
        assert found.unread == f"traced by process {os.getpid()}"
        tracee.detach()
        assert seen(pid).sets


def test_a_stopped_process_stays_stopped() -> None:
    """A process that somebody stopped is read and is as stopped afterwards."""
    with filtered(DENY) as pid:
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        assert [each.programs for each in seen(pid).sets] == [(DENY,)]
        deadline = time.monotonic() + 10
        while not field(pid, "State").startswith("T"):  # it stops again by itself
            assert time.monotonic() < deadline
        os.kill(pid, signal.SIGCONT)


def test_a_process_that_waits_goes_on_waiting() -> None:
    """A sleep, which a stop interrupts, ends at its time and not before."""
    reader, writer = os.pipe()

    def sleeping() -> None:
        began = time.monotonic()
        ctypes.CDLL(None).poll(None, 0, 300)
        os.write(writer, str(time.monotonic() - began).encode())
        signal.pause()

    with filtered(DENY, then=sleeping) as pid:
        for _ in range(20):
            assert seen(pid).sets
        assert float(os.read(reader, 100)) >= 0.3
    os.close(reader)
    os.close(writer)


def vforked() -> None:
    """Wait in the kernel, in state D, for a vfork's child."""
    libc_ = ctypes.CDLL(None)
    if libc_.vfork() == 0:
        libc_.poll(None, 0, 60_000)
        libc_._exit(0)


def test_one_that_does_not_stop_is_told_and_let_go() -> None:
    """A process that waits in the kernel costs a moment, is let go, and the others are read."""
    with filtered(DENY, then=vforked) as stuck, filtered(KILL) as other:
        deadline = time.monotonic() + 10
        while not field(stuck, "State").startswith("D"):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        children = Path(f"/proc/{stuck}/task/{stuck}/children").read_text().split()
        first, second = live_filters.read((stuck, other))
        assert "does not stop" in first.unread
        assert [each.programs for each in second.sets] == [(KILL,)]
        assert field(stuck, "TracerPid") == "0"
        for child in (stuck, *map(int, children)):  # not the child first: they share a stack
            os.kill(child, signal.SIGKILL)


def test_the_dead_are_nobody() -> None:
    """A zombie and a number that nobody has are not told of."""
    need.root()
    pid = os.fork()
    if pid == 0:
        try:
            libc.set_filter(DENY)
        finally:
            os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert live_filters.read_one(pid) is None
    os.waitpid(pid, 0)
    assert live_filters.read_one(pid) is None
    assert live_filters.read_one(1 << 22) is None


def test_whoever_has_the_number_by_now_is_not_taken_for_the_other() -> None:
    """A thread whose number went to another between two looks has ended, and tells nothing."""
    with filtered(DENY) as one:
        gone = processes.pin(one)
    with filtered(KILL) as other:
        status = processes.status_of(other, live_filters_child.KEYS)
        answered = in_child(
            lambda: live_filters_child.Worker(os.getppid(), mmap(-1, 4096))._thread(
                other, gone, status
            )
        )
        assert answered == [[], ""]
        assert field(other, "TracerPid") == "0"
    os.close(gone)


def test_an_ordinary_user_is_told_what_is_lacking() -> None:
    """Who may not trace a process learns that, by the process's name."""
    with filtered(DENY) as pid:
        code = (
            "import os, sys; os.setgid(65534); os.setuid(65534)\n"
            f"from shim.risk import live_filters; print(live_filters.read_one({pid}).unread)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": str(Path(live_filters.__file__).parents[2])},
        )
        assert "may not be traced" in done.stdout


def test_time_over_is_told_of_each_that_was_not_reached() -> None:
    """A look has a limit, and nobody is left out of what it tells."""
    with filtered(DENY) as pid:
        [found] = live_filters.read((pid,), seconds=0)
        assert found.unread == "not reached within 0 s"


def test_killed_at_any_moment_nobody_is_left_held() -> None:
    """SIGKILL of the one who looks, or of its child, leaves no process stopped or traced."""
    chance = random.Random(14)  # noqa: S311 - moments, no secrets
    with filtered(DENY) as one, filtered(KILL) as other:
        for round_ in range(25):
            reader = os.fork()
            if reader == 0:
                try:
                    while True:
                        list(live_filters.read((one, other)))
                finally:
                    os._exit(0)
            time.sleep(chance.uniform(0.001, 0.03))
            children = Path(f"/proc/{reader}/task/{reader}/children").read_text().split()
            if round_ % 2 and children:
                with suppress(ProcessLookupError):
                    os.kill(int(children[0]), signal.SIGKILL)
            os.kill(reader, signal.SIGKILL)
            os.waitpid(reader, 0)
            for pid in (one, other):
                deadline = time.monotonic() + 10
                while field(pid, "TracerPid") != "0" or field(pid, "State")[0] not in "SR":
                    assert time.monotonic() < deadline, Path(f"/proc/{pid}/status").read_text()
                    time.sleep(0.001)


def test_one_killed_while_it_is_read_can_be_reaped() -> None:
    """A process that is killed during the look belongs to its parent as always."""
    with filtered(DENY, then=select.poll().poll) as pid:
        reader = threading.Thread(target=lambda: [live_filters.read_one(pid) for _ in range(30)])
        reader.start()
        time.sleep(0.01)
        victim = os.fork()
        if victim == 0:
            libc.set_filter(KILL)
            signal.pause()
        again = threading.Thread(target=lambda: [live_filters.read_one(victim) for _ in range(30)])
        again.start()
        time.sleep(0.01)
        os.kill(victim, signal.SIGKILL)
        assert os.waitpid(victim, 0)[1] == signal.SIGKILL
        reader.join()
        again.join()


@pytest.mark.parametrize("slow", [0.0, 10.0])
def test_a_batch_is_read_whole(slow: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one child or by one for each, the same processes are told of, and how far it is."""
    monkeypatch.setattr(live_filters_child, "SLOW", slow)
    told: list[tuple[int, int]] = []
    with filtered(DENY) as one, filtered(KILL) as two, filtered() as three:
        found = list(
            live_filters.read(
                (three, two, 1 << 22, one), done=lambda *numbers: told.append(numbers)
            )
        )
    assert [each.pid for each in found] == [three, two, one]
    assert told[-1] == (4, 4)
