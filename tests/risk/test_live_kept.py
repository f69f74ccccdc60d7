"""Whoever keeps the one who looks costs himself, and no other process its answer."""

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from risk.processes import filtered
from risk.test_live_filters import DENY, KILL, field
from shim import abi
from shim.host import libc, processes
from shim.risk import live_filters, live_filters_child

_TRACEEXIT = 1 << 6  # PTRACE_O_TRACEEXIT
_WALL = 0x40000000


@contextmanager
def keeping() -> Iterator[int]:
    """Have a process whose execve waits for a thread that its tracer does not let end.

    Its cred_guard_mutex is held meanwhile, for which a seize waits without a limit.
    """
    told, teller = os.pipe()
    goes, go = os.pipe()

    def work() -> None:
        def thread() -> None:
            os.write(teller, str(threading.get_native_id()).encode())
            signal.pause()

        threading.Thread(target=thread, daemon=True).start()
        os.read(goes, 1)
        os.execv("/bin/sleep", ["sleep", "60"])  # noqa: S606 - a real one

    with filtered(DENY, then=work) as pid:
        tid = int(os.read(told, 20))
        libc.ptrace(abi.PTRACE_SEIZE, tid, 0, _TRACEEXIT)
        os.write(go, b"1")
        deadline = time.monotonic() + 20
        while not field(pid, "State").startswith("D"):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        try:
            yield pid
        finally:
            os.waitpid(tid, _WALL)
            libc.ptrace(abi.PTRACE_CONT, tid)
            os.waitpid(tid, _WALL)
            for each in (told, teller, goes, go):
                os.close(each)


def test_one_that_keeps_whoever_looks_is_told_with_its_place() -> None:
    """It alone is not read, and what it is and where is known; it is looked at once."""
    with filtered(KILL) as good, keeping() as kept, filtered(DENY) as other:
        found = {each.pid: each for each in live_filters.read((good, kept, other))}
        assert found[kept].unread == "it could not be looked at in time"
        assert found[kept].cgroup == processes.cgroup(kept)
        assert found[kept].started == processes.started(kept)
        assert [each.programs for each in found[good].sets] == [(KILL,)]
        assert [each.programs for each in found[other].sets] == [(DENY,)]


def test_many_of_them_do_not_use_up_the_time_of_others() -> None:
    """With eight in front and a few seconds for all, the others are read."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        kept = [stack.enter_context(keeping()) for _ in range(8)]
        good = stack.enter_context(filtered(KILL))
        found = {each.pid: each for each in live_filters.read((*kept, good), seconds=15)}
        assert all(found[each].unread for each in kept)
        assert found[good].sets


def test_whose_processes_cost_time_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """One owner's slow processes are looked at when all others have been."""
    asked: list[list[int]] = []

    def looked_at(
        waiting: list[live_filters.Process], *_: object
    ) -> Iterator[tuple[live_filters.Process | None, float]]:
        asked.append([each.pid for each in waiting])
        yield waiting[0], 1.0 if waiting[0].uid == 7 else 0.001

    def met(pid: int) -> tuple[live_filters.Process, int]:
        uid = 7 if pid < 4 else 8
        found = live_filters.Process(pid, "1", "x", uid, pid, 2, 1, "0::/\n")
        return found, os.open("/proc/self", os.O_RDONLY)

    monkeypatch.setattr(live_filters, "_looked_at", looked_at)
    monkeypatch.setattr(live_filters, "_met", met)
    assert [each.pid for each in live_filters.read((1, 2, 3, 4, 5))] == [1, 4, 5, 2, 3]
    assert asked[1] == [4, 5, 2, 3]


def test_with_few_files_open_everyone_is_read() -> None:
    """Who finds no room to be kept open is told from others by when it started; nothing stays."""
    files = Path("/proc/self/fd")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with filtered(DENY) as one, filtered(KILL) as two, filtered(DENY) as three:
        before = len(list(files.iterdir()))
        limit = before + live_filters._SPARE_FILES + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            found = list(live_filters.read((one, two, three)))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert [each.sets[0].programs for each in found] == [(DENY,), (KILL,), (DENY,)]
        next(live_filters.read((one, two, three)))  # and is not asked for the others
        assert len(list(files.iterdir())) == before


def test_nobody_is_lost_of_a_child_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the child, the one that it was at is told, and those behind are read."""
    plain = live_filters_child.Worker._threads

    def threads(self: live_filters_child.Worker, pid: int, *rest: object) -> tuple[str, str]:
        if pid == bad:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, pid, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(live_filters_child.Worker, "_threads", threads)
    with filtered(DENY) as bad, filtered(KILL) as good, filtered(DENY) as other:
        found = {each.pid: each for each in live_filters.read((good, bad, other))}
        assert "could not be looked at" in found[bad].unread
        assert found[good].sets
        assert found[other].sets
