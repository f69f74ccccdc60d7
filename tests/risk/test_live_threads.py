"""Processes whose threads differ, come and go, or outlive the first one."""

import ctypes
import signal
import threading
import time
from collections.abc import Callable

import pytest

from risk.processes import filtered
from risk.test_live_filters import DENY, NR, answer, field, seen
from shim import abi
from shim.host import libc, processes
from shim.risk import live_filters


def living_threads(*programs: bytes) -> Callable[[], object]:
    """Return what ends a process's first thread and leaves one thread for each program."""

    def thread(program: bytes) -> None:
        if program:
            libc.set_filter(program)
        signal.pause()

    def work() -> None:
        for program in programs:
            threading.Thread(target=thread, args=(program,), daemon=True).start()
        ctypes.CDLL(None).syscall(NR)
        ctypes.CDLL(None).syscall(60, 0)  # exit(2), of this thread alone

    return work


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes soon."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("own", [(), (answer(abi.SECCOMP_RET_KILL_THREAD),)], ids=["plain", "dead"])
def test_threads_outlive_the_first_one(own: tuple[bytes, ...]) -> None:
    """A process whose first thread has ended is as alive as its others, and is judged by them."""
    with filtered(*own, then=living_threads(DENY)) as pid:
        wait_until(lambda: field(pid, "State").startswith("Z"))
        found = seen(pid)
        assert [each.programs for each in found.sets] == [(DENY, *own)]
        assert field(pid, "State").startswith("Z")
    if not own:
        with filtered(then=living_threads(b"")) as pid:
            wait_until(lambda: field(pid, "State").startswith("Z"))
            assert (seen(pid).mode, seen(pid).sets) == (0, ())


def test_a_thread_that_ends_meanwhile_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was listed and is gone when it is looked at leaves the others to be seen."""
    listed = processes.threads
    monkeypatch.setattr(processes, "threads", lambda pid: [1 << 22, *listed(pid)])
    with filtered(then=living_threads(DENY)) as pid:
        wait_until(lambda: field(pid, "State").startswith("Z"))
        assert processes.has_filtered_thread(pid)
        assert [each.programs for each in seen(pid).sets] == [(DENY,)]


def test_however_many_threads_there_are_the_one_with_a_filter_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be the last of thousands."""
    text = {f"/proc/7/task/{tid}/status": b"\nSeccomp:\t0\n" for tid in range(7, 4000)}
    text["/proc/7/task/3999/status"] = b"\nSeccomp:\t2\n"
    monkeypatch.setattr(processes, "threads", lambda _pid: list(range(7, 4000)))
    monkeypatch.setattr(processes, "_read", text.__getitem__)
    assert processes.has_filtered_thread(7)


def test_a_thread_that_began_after_it_was_met_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process of one thread less is asked, but whether there are more is asked again."""
    met = live_filters._met

    def alone(pid: int) -> tuple[live_filters.Process, int] | None:
        found = met(pid)
        return found and (found[0]._replace(threads=1), found[1])

    def another() -> None:
        libc.set_filter(DENY)
        signal.pause()

    def work() -> None:
        threading.Thread(target=another).start()
        signal.pause()

    monkeypatch.setattr(live_filters, "_met", alone)
    with filtered(DENY, then=work) as pid:
        wait_until(lambda: len(seen(pid).sets) == 2)
        assert {each.programs for each in seen(pid).sets} == {(DENY,), (DENY, DENY)}
