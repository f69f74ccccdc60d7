"""The filters that live processes really have, read from the kernel.

A child of ours looks at a batch of processes, one thread at a time: it is stopped, its filters are
copied, and it goes on (``shim.host.ptrace``, which also sees that the program learns nothing of
it). Whatever becomes of us or of the child, the kernel lets go of the thread at the child's end,
and the child ends with us, and with its time. Nobody is touched who is traced already.

No interface of the kernel tells that two processes share a filter without reading both: how many
there are says nothing of what they are, since a child may have loaded another than its parent
after the fork. So each is read; what they say is found once for each distinct set
(``shim.risk.verdict``). Needs CAP_SYS_PTRACE and CAP_SYS_ADMIN, and no filter on ourselves.
"""

import errno
import marshal
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from shim import abi
from shim.bpf.outcomes import surely_lets_through
from shim.host import processes
from shim.host.children import answer_of
from shim.host.ptrace import GoneError, StillError, look

Programs = tuple[bytes, ...]  # of one thread, the newest first

# How long a thread is waited for: one that runs stops within microseconds, on a busy machine within
# a few turns. One that the kernel keeps (state D) has most often stopped by itself soon, or never.
_SECONDS = 1.0
_SECONDS_IN_KERNEL = 0.05
_BATCH = 1024
_BATCH_SECONDS = 5
_ANSWER_BYTES = 16 << 20
# Of a batch's answer: with one process more it stays below the limit.
_ENOUGH_BYTES = 4 << 20
_THREADS = 32
_STRICT = "1"
_ENDED = ("Z", "X", "x")
_KEYS = (
    "Name", "State", "Tgid", "TracerPid", "Uid", "NSpid", "Threads", "Seccomp", "Seccomp_filters",
)  # fmt: skip
_EMEDIUMTYPE = 124  # include/uapi/asm-generic/errno.h

_UNREADABLE = {
    errno.EACCES: "its filters may not be read: that needs CAP_SYS_ADMIN, and no filter on us",
    errno.EINVAL: "this kernel does not tell filters (it lacks CONFIG_CHECKPOINT_RESTORE)",
    errno.EIO: "this kernel does not tell filters (it lacks CONFIG_CHECKPOINT_RESTORE)",
    errno.EPERM: "it may not be traced: that needs root, and a Yama scope below 3",
    _EMEDIUMTYPE: "the kernel has not kept its filter in the form in which it was loaded",
}


class FilterSet(NamedTuple):
    """Filters in force, the newest first, and of how many threads; ``tid`` is one of them."""

    programs: Programs
    threads: int
    tid: int


class Process(NamedTuple):
    """One process: ``mode`` is its seccomp mode, ``sets`` what its threads have, mostly one.

    ``unread`` says why there are none, ``partly`` what is not known beside what was read.
    ``started`` with ``pid`` tells it from any other process (clock ticks since boot). ``inside`` is
    its number in its own pid namespace. ``stopped`` are the microseconds that its threads stood.
    """

    pid: int
    started: str
    name: str
    uid: int
    inside: int
    mode: int
    threads: int
    cgroup: str
    sets: tuple[FilterSet, ...] = ()
    unread: str = ""
    partly: str = ""
    stopped: tuple[int, ...] = ()


def read(
    pids: Iterable[int],
    *,
    seconds: float = 60,
    done: Callable[[int, int], object] = lambda _done, _total: None,
) -> Iterator[Process]:
    """Yield what there is to know of each of ``pids``, but of those that have ended.

    ``done`` is told how many of how many have been looked at. After ``seconds`` the rest is told as
    not read. OSError: no child can be started.
    """
    waiting = list(pids)
    total = len(waiting)
    until = time.monotonic() + seconds
    size = _BATCH
    interned: dict[Programs, Programs] = {}
    while waiting:
        batch = waiting[:size]
        left = until - time.monotonic()
        if left <= 0:
            yield from (_not_read(pid, f"not reached within {seconds:g} s") for pid in waiting)
            break
        rows = _answer(batch)
        if rows is None and len(batch) > 1:
            size = max(1, len(batch) // 8)  # one of these keeps whoever looks: find it
            continue
        if rows is None:
            yield _not_read(batch[0], f"it could not be looked at within {_BATCH_SECONDS} s")
            rows = [(batch[0], None)]
        else:
            size = min(_BATCH, 8 * size)
        del waiting[: len(rows)]
        for _, row in rows:
            if row is not None:
                sets = tuple(
                    FilterSet(interned.setdefault(programs, programs), threads, tid)
                    for programs, threads, tid in row[8]
                )
                for each in sets:  # found here, the next child knows it while it holds a thread
                    _lets_restart(each.programs)
                yield Process(*row[:8], sets, *row[9:])
        done(total - len(waiting), total)


def read_one(pid: int) -> Process | None:
    """Return what there is to know of process ``pid``; None: it has ended."""
    return next(read((pid,)), None)


def _not_read(pid: int, why: str) -> Process:
    return Process(pid, "", "", -1, 0, abi.SECCOMP_MODE_FILTER, 0, "", unread=why)


def _answer(pids: Sequence[int]) -> "list[tuple[int, Row | None]] | None":
    """Have a child look at ``pids``: for as many as it came to, what it saw; None: nothing came."""
    parent = os.getpid()

    def work(writer: int) -> None:
        text = memoryview(marshal.dumps(_Worker(parent).look_at(pids)))
        while text:
            text = text[os.write(writer, text) :]

    try:
        answer = answer_of(work, _BATCH_SECONDS + 2 * _SECONDS + 1, _ANSWER_BYTES)
        found: list[tuple[int, Row | None]] = marshal.loads(answer)  # noqa: S302 - our own child
    except (TimeoutError, EOFError, ValueError, TypeError):
        return None
    return found or None


# What ``Process`` is made of.
Row = tuple[int, str, str, int, int, int, int, str, tuple[tuple[Programs, int, int], ...], str, str,
            tuple[int, ...]]  # fmt: skip


class _Worker:
    """The child that looks. ``broken``: it may still hold a thread, and only its end lets go."""

    def __init__(self, parent: int) -> None:
        import signal

        from shim.host import libc

        # Both see to it that nobody is held for long: our parent's end, and a time of our own.
        libc.prctl(abi.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM,))
        signal.alarm(_BATCH_SECONDS + 2)
        self.parent = parent
        self.broken = False
        self.size = 0
        self.known: dict[Programs, Programs] = {}
        self.stopped: list[int] = []

    def look_at(self, pids: Sequence[int]) -> "list[tuple[int, Row | None]]":
        """Return each process with what was seen, None: it has ended; the first one at least."""
        until = time.monotonic() + _BATCH_SECONDS
        found: list[tuple[int, Row | None]] = []
        for pid in pids:
            found.append((pid, self.process(pid)))
            if self.broken or self.size > _ENOUGH_BYTES or time.monotonic() > until:
                break
        return found

    def process(self, pid: int) -> "Row | None":
        """Look at one process."""
        if pid in (self.parent, os.getpid()):
            return None
        pinned = processes.pin(pid)
        if pinned < 0:
            return None
        try:
            return self._row(pid, pinned)
        except (OSError, IndexError):  # it ended between two looks
            return None
        finally:
            os.close(pinned)

    def _row(self, pid: int, pinned: int) -> "Row | None":
        status = processes.status(pinned, _KEYS)
        if not status or status["Tgid"] != [str(pid)]:
            return None
        mode, count = _number(status, "Seccomp"), _number(status, "Threads")
        ended = status["State"][0] in _ENDED
        # The first thread may have ended before others, in the mode SECCOMP_MODE_DEAD.
        if mode in (0, 3) and count > 1 and processes.has_filtered_thread(pid):
            mode = abi.SECCOMP_MODE_FILTER
        self.stopped = []
        sets: dict[Programs, list[int]] = {}
        unread = partly = ""
        if mode == abi.SECCOMP_MODE_FILTER:
            unread, partly = self._threads(pid, pinned, status, sets)
            if not sets and not unread:
                return None
        elif ended and count > 1:
            mode = 0  # its first thread has ended, and none of the others has a filter
        elif ended:
            return None
        return (
            pid,
            processes.started_of(_text(pinned, "stat")),
            " ".join(status.get("Name", ())),
            _number(status, "Uid"),
            int(status["NSpid"][-1]) if "NSpid" in status else pid,
            mode,
            count,
            _text(pinned, "cgroup"),
            tuple((programs, len(tids), tids[0]) for programs, tids in sets.items()),
            unread,
            partly,
            tuple(self.stopped),
        )

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
        if _number(status, "Threads") == 1 or self.broken:
            return why, ""
        numbers = {_number(status, "Seccomp_filters")}
        read, counted = 1, 0
        for tid in processes.threads(pid):
            if tid == pid:
                continue
            pinned = processes.pin_thread(pid, tid)
            try:
                if not (status := processes.status(pinned, _KEYS)):
                    continue
                number = _number(status, "Seccomp_filters")
                if read >= _THREADS and (number in numbers or read >= 2 * _THREADS):
                    counted += 1
                    continue
                numbers.add(number)
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
        if status["State"][0] in _ENDED:
            return ""
        if status["Seccomp"] == [_STRICT]:
            return "in strict mode (SECCOMP_MODE_STRICT)"
        if status["Seccomp"] != [str(abi.SECCOMP_MODE_FILTER)]:
            sets.setdefault((), []).append(tid)
            return ""
        programs, why = self._thread(tid, pinned, status)
        if programs:
            sets.setdefault(programs, []).append(tid)
        return why

    def _thread(
        self, tid: int, pinned: int, status: "dict[str, list[str]]"
    ) -> "tuple[Programs, str]":
        """Read the filters of one thread: none if it has ended; or why they cannot be read."""
        if tracer := _number(status, "TracerPid"):
            return (), f"traced by process {tracer}"
        limit = _SECONDS_IN_KERNEL if status["State"][0] == "D" else _SECONDS
        began = time.perf_counter_ns()
        try:
            found = look(tid, _denies_restart, limit, lambda: _is_there(pinned))
        except OSError as error:
            # Killed while we held it, it is ours to wait for, which our end does.
            self.broken = error.errno in (errno.ESRCH, errno.ECHILD)
            now = processes.status(pinned, _KEYS)
            if not now or now["State"][0] in _ENDED or self.broken:
                return (), ""
            if tracer := _number(now, "TracerPid"):
                return (), f"traced by process {tracer}"
            told = os.strerror(error.errno or 0)
            return (), _UNREADABLE.get(error.errno or 0, f"it cannot be read: {told}")
        except StillError:
            self.broken = True
            return (), "it does not stop (paused, in vfork, waiting in the kernel, or dying)"
        except GoneError:
            return (), ""
        self.stopped.append((time.perf_counter_ns() - began) // 1000)
        programs = tuple(found)
        if programs not in self.known:
            self.size += sum(map(len, programs))
        return self.known.setdefault(programs, programs), ""


def _denies_restart(programs: "list[bytes]") -> bool:
    return not _lets_restart(tuple(programs))


@lru_cache(maxsize=4096)
def _lets_restart(programs: Programs) -> bool:
    return surely_lets_through(programs, abi.NR_RESTART_SYSCALL)


def _number(status: "dict[str, list[str]]", key: str) -> int:
    """Return the first number of a field, 0 where the kernel tells none."""
    return int(status.get(key, ["0"])[0])


def _text(pinned: int, name: str) -> str:
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
