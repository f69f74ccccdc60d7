"""The child that looks at the threads of live processes, for ``shim.risk.live_filters``."""

import errno
import gc
import marshal
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from mmap import mmap

from shim import abi
from shim.bpf.outcomes import surely_lets_through
from shim.host import processes
from shim.host.ptrace import GoneError, StillError, read_stopped

Programs = tuple[bytes, ...]  # of one thread, the newest first
# What is told of a process: of its sets (number, threads, one of them), why none was read, what is
# lacking, the microseconds that threads stood, whether all were in 32-bit mode. None: it has ended.
Row = tuple[list[tuple[int, int, int]], str, str, list[int], bool]

# How long a thread is waited for: one that runs stops within microseconds, on a busy machine within
# a few turns. One that the kernel keeps (state D) has most often stopped by itself soon, or never.
_SECONDS = 1.0
_SECONDS_IN_KERNEL = 0.05
# What a look takes beside the waiting; then the kernel ends us, since something keeps us.
_GRACE = 0.5
# Of one process with all of its threads. Who has taken longer than the second is slow.
_PROCESS_SECONDS = 2.0
SLOW = 0.1
# Of one child with all that it looks at; whoever waits for it learns of none before its end.
_BATCH_SECONDS = 1.0
# Memory in which the child notes what it sees, so that it is there whatever ends it; no more of it
# is taken than is written. A process may have 16 MB, of 64 threads with all that the kernel admits.
ROOM = 64 << 20
END = (1 << 32) - 1
_LATE = "not all of its threads could be looked at in time"
_THREADS = 32
_STRICT, _FILTERED = "1", str(abi.SECCOMP_MODE_FILTER)
ENDED = ("Z", "X", "x")
KEYS = ("State", "TracerPid", "Threads", "Seccomp", "Seccomp_filters")
# Of a process of one thread, which had filters: no thread ever loses its own, and who is traced
# cannot be seized.
_SINGLE = {"State": ["S"], "Threads": ["1"], "Seccomp": [_FILTERED]}
# A directory has two links, and a process's task one more for each thread (fs/proc/base.c,
# proc_task_getattr).
_LINKS = 2
_EMEDIUMTYPE = 124  # include/uapi/asm-generic/errno.h

_UNREADABLE = {
    errno.EACCES: "its filters may not be read: that needs CAP_SYS_ADMIN, and no filter on us",
    errno.EINVAL: "this kernel does not tell filters (it lacks CONFIG_CHECKPOINT_RESTORE)",
    errno.EIO: "this kernel does not tell filters (it lacks CONFIG_CHECKPOINT_RESTORE)",
    errno.EPERM: "it may not be traced: that needs root, and a Yama scope below 3",
    _EMEDIUMTYPE: "the kernel has not kept its filter in the form in which it was loaded",
}


class Worker:
    """The child that looks. ``broken``: it may still hold a thread, and only its end lets go."""

    def __init__(self, parent: int, memory: mmap) -> None:
        from shim.host import libc

        # Both see to it that nobody is held for long: our parent's end, and a time of our own.
        libc.prctl(abi.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM,))
        _hurry()
        self.memory = memory
        self.used = 0
        self.broken = False
        self.until = 0.0
        self.known: dict[Programs, int] = {}
        self.last: Programs | None = None
        self.new: list[Programs] = []  # of ``known``, what has not been sent
        self.stopped: list[int] = []
        self.in_64_bits = False
        self.keepers: set[int] = set()  # tracers that do more than look, as we do

    def look_at(self, asked: Sequence[tuple[int, str, bool, int]], until: float) -> None:
        """Note what is seen of each process until one was slow or time is over.

        Of each: its number, when it started, whether it had one thread, which had filters and did
        not wait in the kernel, and its open directory in /proc, or -1.
        """
        gc.disable()  # we end before there is anything to collect
        until = min(until, time.monotonic() + _BATCH_SECONDS)
        for pid, started, single, pinned in asked:
            began = time.monotonic()
            self.until = began + _PROCESS_SECONDS
            row = self._row(pid, started, pinned, single=single)
            now = time.monotonic()
            self._put(marshal.dumps((now - began, self.new, row)))
            self.new = []
            if self.broken or now - began > SLOW or now > until or self.used > ROOM // 2:
                break
        self._put(b"")

    def _put(self, data: bytes) -> None:
        self.memory[self.used + 4 : self.used + 4 + len(data)] = data
        # Last of all: an empty one, and one that is not whole, have the length of none.
        self.memory[self.used : self.used + 4] = (len(data) or END).to_bytes(4, "little")
        self.used += 4 + len(data)

    def _row(self, pid: int, started: str, kept: int, *, single: bool) -> "Row | None":
        pinned = kept if kept >= 0 else processes.pin(pid)
        if pinned < 0:
            return None
        _end_after(_PROCESS_SECONDS + _GRACE)
        self.stopped, self.in_64_bits = [], False
        sets: dict[Programs, list[int]] = {}
        try:
            if kept < 0 and processes.stat_of(text(pinned, "stat"))[2] != started:
                return None
            # Where somebody keeps processes, it is asked first whether he keeps this one.
            one = single and not self.keepers
            if one and os.stat("task", dir_fd=pinned).st_nlink == _LINKS + 1:
                status = _SINGLE
            elif not (status := processes.status(pinned, KEYS)):
                return None
            unread, partly = self._threads(pid, pinned, status, sets)
            if not sets and not unread:
                return None
        except (OSError, IndexError):  # it ended between two looks
            return None
        finally:
            if kept < 0:
                os.close(pinned)
        told = [(self.known[programs], len(tids), tids[0]) for programs, tids in sets.items()]
        return told, unread, partly, self.stopped, bool(self.stopped) and not self.in_64_bits

    def _threads(
        self,
        pid: int,
        first: int,
        status: "dict[str, list[str]]",
        sets: "dict[Programs, list[int]]",
    ) -> tuple[str, str]:
        """Read the threads of a process into ``sets``; why none was read, and what is lacking.

        ``first`` and ``status`` are of its first one. Of very many those behind are read only if
        their number of filters is a new one.
        """
        why = self._note(pid, first, status, sets)
        if number(status, "Threads") == 1 or self.broken:
            return why, ""
        numbers = {number(status, "Seccomp_filters")}
        read, counted = 1, 0
        for tid in processes.threads(pid):
            if tid == pid:
                continue
            if time.monotonic() > self.until:
                return ("", _LATE) if sets else (why or _LATE, "")
            pinned = processes.pin_thread(pid, tid)
            try:
                if not (status := processes.status(pinned, KEYS)):
                    continue
                count = number(status, "Seccomp_filters")
                if read >= _THREADS and (count in numbers or read >= 2 * _THREADS):
                    counted += 1
                    continue
                numbers.add(count)
                read += 1
                why = self._note(tid, pinned, status, sets) or why
            finally:
                if pinned >= 0:
                    os.close(pinned)
            if self.broken:
                break
        if why and sets:
            return "", f"of some of its threads: {why}"
        if counted:
            return why, f"{counted} of its threads have as many filters, and were not read"
        return why, ""

    def _note(
        self,
        tid: int,
        pinned: int,
        status: "dict[str, list[str]]",
        sets: "dict[Programs, list[int]]",
    ) -> str:
        """Note what one thread has; why that cannot be read."""
        if status["State"][0] in ENDED:
            return ""
        if status["Seccomp"] == [_STRICT]:
            return "in strict mode (SECCOMP_MODE_STRICT)"
        if status["Seccomp"] != [_FILTERED]:
            self._note_set((), tid, sets)
            return ""
        programs, why = self._thread(tid, pinned, status)
        if programs:
            self._note_set(programs, tid, sets)
        return why

    def _note_set(self, programs: Programs, tid: int, sets: "dict[Programs, list[int]]") -> None:
        if programs == self.last:  # most often: the hash of one that was read is the dearer look
            programs = self.last
        elif programs not in self.known:
            self.known[programs] = len(self.known)
            self.new.append(programs)
        self.last = programs
        sets.setdefault(programs, []).append(tid)

    def _thread(
        self, tid: int, pinned: int, status: "dict[str, list[str]]"
    ) -> "tuple[Programs, str]":
        """Read the filters of one thread: none if it has ended; or why they cannot be read."""
        if (tracer := number(status, "TracerPid")) in self.keepers:
            return (), f"traced by process {tracer}"
        limit = _SECONDS_IN_KERNEL if status["State"][0] == "D" else _SECONDS
        began = time.perf_counter_ns()
        _end_after(limit + _GRACE)
        try:
            found, narrow = read_stopped(tid, _denies_restart, limit, lambda: _is_there(pinned))
        except OSError as error:
            # Killed while we held it, it is ours to wait for, which our end does.
            self.broken = error.errno in (errno.ESRCH, errno.ECHILD)
            now = processes.status(pinned, KEYS)
            if not now or now["State"][0] in ENDED or self.broken:
                return (), ""
            if tracer := number(now, "TracerPid"):
                self.keepers.add(tracer)
                return (), f"traced by process {tracer}"
            told = os.strerror(error.errno or 0)
            return (), _UNREADABLE.get(error.errno or 0, f"it cannot be read: {told}")
        except StillError:
            self.broken = True
            return (), "it does not stop (paused, in vfork, waiting in the kernel, or dying)"
        except GoneError:
            return (), ""
        finally:
            _end_after(_PROCESS_SECONDS + _GRACE)
        self.in_64_bits |= not narrow
        self.stopped.append((time.perf_counter_ns() - began) // 1000)
        return tuple(found), ""


def _denies_restart(programs: "list[bytes]") -> bool:
    return not lets_restart(tuple(programs))


@lru_cache(maxsize=4096)
def lets_restart(programs: Programs) -> bool:
    """Tell whether filters let restart_syscall through, as it is known to who forks afterwards."""
    return surely_lets_through(programs, abi.NR_RESTART_SYSCALL)


def _end_after(seconds: float) -> None:
    """Have the kernel end us after ``seconds``, unless told otherwise before; 0: not."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _hurry() -> None:
    """Go before others on the processor: whom we hold waits for as long as they keep us.

    It is for a batch's second at most; without the right to it we take our turn.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)


def number(status: "dict[str, list[str]]", key: str) -> int:
    """Return the first number of a field, 0 where the kernel tells none."""
    return int(status.get(key, ["0"])[0])


def text(pinned: int, name: str) -> str:
    """Return a file of a process in /proc."""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=pinned)
    try:
        return os.read(fd, 65536).decode(errors="replace")
    finally:
        os.close(fd)


def _is_there(pinned: int) -> bool:
    """Tell whether the thread has not been reaped, as cheaply as that goes, since it is held."""
    try:
        os.stat("stat", dir_fd=pinned)
    except OSError:
        return False
    return True
