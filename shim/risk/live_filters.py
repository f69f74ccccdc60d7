"""The filters that live processes really have, read from the kernel.

Where a process is, and whether any of its threads is under seccomp, /proc tells. Of those that are
a child of ours looks at one thread at a time: it is stopped, its filters are copied, and it goes
on (``shim.host.ptrace``, which also sees that the program learns nothing of it). Whatever becomes
of us or of the child, the kernel lets go of the thread at the child's end, and the child ends with
us, and with its time. Nobody is touched who is traced already.

Whoever is looked at can keep the one who looks: a seize waits for the target's execve
(kernel/ptrace.c, cred_guard_mutex), and that for whatever its owner likes. So the child tells of
each process as soon as it is through with it, and a timer ends it: the one behind is not read, and
the next child begins behind that. An owner who has cost time comes last from then on.

No interface of the kernel tells that two processes share a filter without reading both: how many
there are says nothing of what they are, since a child may have loaded another than its parent
after the fork. So each is read; what they say is found once for each distinct filter
(``shim.risk.verdict``). Needs CAP_SYS_PTRACE and CAP_SYS_ADMIN, and no filter on ourselves.
"""

import marshal
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest
from mmap import mmap
from resource import RLIMIT_NOFILE, getrlimit
from typing import NamedTuple

from shim import abi
from shim.host import processes
from shim.host.children import answer_of
from shim.risk.groups import Place, place
from shim.risk.live_filters_child import (
    END,
    ENDED,
    ROOM,
    SLOW,
    Programs,
    Row,
    Worker,
    lets_restart,
    number,
    text,
)

# How long the child may say nothing: more than it can take for one, in case it cannot even die.
_PATIENCE = 8
_MET = ("Name", "State", "Tgid", "Uid", "NSpid", "Threads", "Seccomp")
# What those who are slow cost in all before their owner comes last.
_SHARE = 0.5
# Of the files that we may have open, those that are left to whoever else opens some.
_SPARE_FILES = 64


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
    ``in_32_bits``: all stood in 32-bit mode. ``nested``: it is in a pid namespace of
    its own, where its number may be chosen to fit.
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
    in_32_bits: bool = False
    nested: bool = False
    waits: bool = False


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
    pinned: dict[int, int] = {}
    try:
        yield from _read(list(pids), pinned, seconds, done)
    finally:
        for fd in pinned.values():
            os.close(fd)


def _read(
    asked: list[int], pinned: dict[int, int], seconds: float, done: Callable[[int, int], object]
) -> Iterator[Process]:
    """Read them; who is kept open in ``pinned`` need not be told from another one later."""
    until = time.monotonic() + seconds
    room = getrlimit(RLIMIT_NOFILE)[0] - len(os.listdir("/proc/self/fd")) - _SPARE_FILES
    waiting: list[Process] = []
    for pid in asked:
        if (met := _met(pid)) is None:
            continue
        process, fd = met
        filtered = process.mode == abi.SECCOMP_MODE_FILTER
        if filtered and len(pinned) < room:
            pinned[pid] = fd
        else:
            os.close(fd)
        if filtered:
            waiting.append(process)
        else:
            yield process
    done(len(asked) - len(waiting), len(asked))
    spent: defaultdict[object, float] = defaultdict(float)
    interned: dict[Programs, Programs] = {}
    while waiting:
        if time.monotonic() >= until:
            why = f"not reached within {seconds:g} s"
            yield from (each._replace(unread=why) for each in waiting)
            return
        if max(spent.values(), default=0) > _SHARE:
            waiting.sort(key=lambda each: spent[owner(each)] > _SHARE)
        looked = 0
        for found, took in _looked_at(waiting, pinned, until, interned):
            if took > SLOW:
                spent[owner(waiting[looked])] += took
            looked += 1
            done(len(asked) - len(waiting) + looked, len(asked))
            if found is not None:
                yield found
        del waiting[:looked]


def owner(process: Process, where: Place | None = None) -> object:
    """Return who answers for a process: a container, or a user."""
    found = where or place(process.cgroup)
    return found if found.kind == "container" and not found.user else found.user or process.uid


def read_one(pid: int) -> Process | None:
    """Return what there is to know of process ``pid``; None: it has ended."""
    return next(read((pid,)), None)


def _met(pid: int) -> tuple[Process, int] | None:
    """Return what /proc tells of a process, which keeps nobody waiting, and its open directory.

    None: it has ended.
    """
    fd = -1 if pid == os.getpid() else processes.pin(pid)
    if fd < 0:
        return None
    process = None
    try:
        status = processes.status(fd, _MET)
        if not status or status["Tgid"] != [str(pid)]:
            return None
        mode, count = number(status, "Seccomp"), number(status, "Threads")
        # The first thread may have ended before others, in the mode SECCOMP_MODE_DEAD.
        if mode in (0, 3) and count > 1:
            mode = abi.SECCOMP_MODE_FILTER if processes.has_filtered_thread(pid) else 0
        elif status["State"][0] in ENDED and count == 1:
            return None
        process = Process(
            pid,
            processes.stat_of(text(fd, "stat"))[2],
            " ".join(status.get("Name", ())),
            number(status, "Uid"),
            int(status["NSpid"][-1]) if "NSpid" in status else pid,
            mode,
            count,
            text(fd, "cgroup"),
            nested=len(status.get("NSpid", ())) > 1,
            waits=status["State"][0] == "D",
        )
        return process, fd
    except (OSError, IndexError):  # it ended between two looks
        return None
    finally:
        if process is None:
            os.close(fd)


def _looked_at(
    asked: Sequence[Process],
    pinned: dict[int, int],
    until: float,
    interned: dict[Programs, Programs],
) -> Iterator[tuple[Process | None, float]]:
    """Have a child look at ``asked``: in their order, of one at least, what it saw and took.

    None: it has ended.
    """
    parent = os.getpid()
    names = [
        (each.pid, each.started, each.threads == 1 and not each.waits, pinned.get(each.pid, -1))
        for each in asked
    ]
    known: list[Programs] = []
    began, spent = time.monotonic(), 0.0
    with mmap(-1, ROOM) as memory:
        with suppress(TimeoutError):
            answer_of(lambda _: Worker(parent, memory).look_at(names, until), _PATIENCE, 0)
        took_all = time.monotonic() - began
        for process, told in zip_longest(asked, _notes(memory)):
            if told is None:  # something has kept it, and its timer has ended it
                why = "it could not be looked at in time"
                yield process._replace(unread=why), took_all - spent
                return
            if not told:
                return
            took, new, row = marshal.loads(told)  # noqa: S302 - our own child wrote it
            spent += took
            for programs in new:
                known.append(interned.setdefault(programs, programs))
                lets_restart(programs)  # the next child knows it while it holds a thread
            yield _completed(process, row, known), took


def _notes(memory: mmap) -> Iterator[bytes]:
    """Yield what the child has noted of each process, and an empty text if it was through."""
    at = 0
    while size := int.from_bytes(memory[at : at + 4], "little"):
        if size == END:
            yield b""
            return
        yield memory[at + 4 : at + 4 + size]
        at += 4 + size


def _completed(process: Process, row: Row | None, known: list[Programs]) -> Process | None:
    if row is None:
        return None
    sets, unread, partly, stopped, in_32_bits = row
    return process._replace(
        sets=tuple(FilterSet(known[each], threads, tid) for each, threads, tid in sets),
        unread=unread,
        partly=partly,
        stopped=tuple(stopped),
        in_32_bits=in_32_bits,
    )
