"""Calls that ended with an errno or by seccomp, and the filters of their callers, as it happens.

Raw tracepoints tell, with the registers of user space: at ``sys_exit`` they are what they were when
the call began, but for ax, which holds its result (and rcx and r11, which ``syscall`` takes). Who
refused the call, a filter or the kernel, they do not tell: that the filter says, to which the
registers are all that it is asked about (``struct seccomp_data``). So the caller's filters are
copied where they are, in the kernel, once for each process, and no process is touched, nor missed
because it ends at once. SIGSYS of seccomp's comes by ``signal_generate``. A thread that is ended
alone (KILL_THREAD beside others) gets no signal: it passes ``sched_process_exit`` as one that
seccomp has given up (SECCOMP_MODE_DEAD, Linux 5.17), while ax is still what each entry of a call
sets it to, -ENOSYS.

A call that ends otherwise costs a comparison (docs/benchmarks.md), and so does each call of a
process without a filter.
"""

import errno
import struct
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from shim import abi
from shim.errors import ShimError
from shim.host.tracing import btf, ebpf

_RING_BYTES = 1 << 23
_KNOWN = 1 << 14  # filters of threads that have been copied
_KEPT_BYTES = 64 << 20  # of filters, each content once
_PLACES = 16  # mount namespaces of one container that are told apart from others
_DEPTH = 16  # filters of one thread that are copied; more are told as unknown
# A record of an event: kind, time, thread, its begin, filter, mount namespace, name, registers, a
# detail, and the processes above it.
_REGISTERS = 21  # struct pt_regs, arch/x86/include/asm/ptrace.h, as words
_ANCESTORS = 8
_EVENT = struct.Struct(f"=QQQQQQ16s{_REGISTERS}Q16s{_ANCESTORS}I")
_KIND, _TIME, _THREAD, _BEGAN, _FILTER, _PLACE, _NAME, _DATA = 0, 8, 16, 24, 32, 40, 48, 64
_DETAIL = _DATA + 8 * _REGISTERS
_PARENTS = _DETAIL + 16
_AT = -_EVENT.size  # below the frame pointer
_WORD, _SECOND, _KEY = _AT - 8, _AT - 16, _AT - 40
_KEY_BYTES = 24  # thread, its begin, filter: an address is given anew, a thread keeps its filters
# A record of a program: kind, thread, its begin, filter, the one before it, length; then the
# instructions.
_PROGRAM = struct.Struct("=QQQQQQ")
# With its head not more than a processor's part of a map (mm: PCPU_MIN_UNIT_SIZE, 32 KiB). A
# longer program is told as unknown; the kernel admits 4096 instructions.
_LONGEST = (32768 - _PROGRAM.size) // 8
_BP, _BX, _R10, _R9, _R8, _AX, _CX, _DX, _SI, _DI = 4, 5, 7, 8, 9, 10, 11, 12, 13, 14
_ORIG_AX, _IP, _CS = 15, 16, 17
_USER32_CS = 0x23
_INT_80 = b"\xcd\x80"
_RESULT, _SIGNAL, _END, _FILTER_CODE = 0, 1, 2, 3
_SECCOMP_MODE_DEAD = 3
_SIGSYS = 31
_SIGINFO = struct.Struct("=iii")  # signo, errno, code
_SYS_SECCOMP = 1  # si_code
_NO_CALL = 0xFFFFFFFF  # a thread that a tracer or a signal led away from its call
_MEMBERS = (
    "task_struct.seccomp", "seccomp.mode", "seccomp.filter", "seccomp_filter.prev",
    "seccomp_filter.prog", "bpf_prog.orig_prog", "sock_fprog_kern.len", "sock_fprog_kern.filter",
    "task_struct.real_parent", "task_struct.tgid", "task_struct.start_time",
    "task_struct.nsproxy", "nsproxy.mnt_ns",
    "mnt_namespace.ns", "ns_common.inum",
)  # fmt: skip


class Ended(NamedTuple):
    """A call that was not made, or failed: when (monotonic, ns), whose, and its seccomp_data.

    ``ancestors`` are the processes above its own, the nearest first, eight at most; ``place`` is
    the number of its mount namespace (``/proc/PID/ns/mnt``). ``filters`` are the
    programs in force, the newest first; None: they are not known. ``errno`` is what the program
    got, from a filter or the kernel. None: SIGSYS, by which the program is ended unless it handles
    it; 0: the thread was ended, without a signal, and its filters are gone.
    """

    time: int
    pid: int
    tid: int
    ancestors: tuple[int, ...]
    place: int
    name: str
    arch: int
    nr: int
    args: tuple[int, ...]
    ip: int
    errno: int | None
    filters: tuple[bytes, ...] | None


class _Filters:
    """Filters as they were copied, by thread: each content is kept once, and not all for ever."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int, int], tuple[int, bytes]] = {}
        self._contents: dict[bytes, tuple[bytes, int]] = {}  # and how often it is used
        self._bytes = 0

    def add(self, key: tuple[int, int, int], before: int, code: bytes) -> None:
        """Note a filter and the address of the one before it; the oldest ones may go for it."""
        self._drop(key)
        same, count = self._contents.get(code, (code, 0))
        self._bytes += 0 if count else len(code)
        self._contents[same] = same, count + 1
        self._found[key] = before, same
        while len(self._found) > _KNOWN or self._bytes > _KEPT_BYTES:
            self._drop(next(iter(self._found)))

    def _drop(self, key: tuple[int, int, int]) -> None:
        _, code = self._found.pop(key, (0, None))
        if code is None:
            return
        same, count = self._contents[code]
        self._contents[same] = same, count - 1
        if count == 1:
            del self._contents[same]
            self._bytes -= len(same)

    def chain(self, thread: int, began: int, last: int) -> tuple[bytes, ...] | None:
        """Return the programs from ``last`` back to the oldest; None: one of them is not known."""
        chain: list[bytes] = []
        while last:
            before, code = self._found.get((thread, began, last), (0, b""))
            if not code or len(chain) == _DEPTH:
                return None
            chain.append(code)
            last = before
        return tuple(chain) or None


class Watch:
    """Calls of filtered threads that end with one of ``errnos``, or by seccomp.

    From the making to ``close``; a context manager. ``places`` are the mount namespaces that count,
    ``pid`` the process that does with what it starts; with neither everybody does. What does not
    count takes no room in the ring from what does.
    """

    def __init__(
        self, errnos: Collection[int], *, places: Collection[int] = (), pid: int = 0
    ) -> None:
        """Begin. ShimError: the kernel does not let us."""
        if len(places) > _PLACES:
            raise ShimError(f"has more than {_PLACES} mount namespaces", subject="the container")
        self._places, self._pid = tuple(places), pid
        self._member = btf.offsets(_MEMBERS)
        self._ring = ebpf.Ring(_RING_BYTES)
        self._lost = ebpf.Counter()
        self._known = ebpf.Table(_KNOWN, key=_KEY_BYTES, value=_KEY_BYTES)
        self._room = ebpf.Scratch(_PROGRAM.size + _LONGEST * 8)
        self._links: list[int] = []
        self._filters = _Filters()
        self.errnos: frozenset[int] = frozenset()
        try:
            self._links.append(ebpf.attach(self._of_signals(), "signal_generate"))
            self._links.append(ebpf.attach(self._of_ends(), "sched_process_exit"))
            self.look_for(errnos)
        except BaseException:
            self.close()
            raise

    def look_for(self, errnos: Collection[int]) -> None:
        """Look for these as well from now on."""
        wanted = self.errnos.union(errnos)
        if wanted == self.errnos:
            return
        self._links.append(ebpf.attach(self._of_results(wanted), "sys_exit"))
        if self.errnos:
            ebpf.close(self._links.pop(-2))
        self.errnos = wanted

    def events(self) -> Iterator[Ended]:
        """Give what has come since it was asked last, in the order in which it came."""
        for record in self._ring.records():
            if record[0] == _FILTER_CODE:
                _, thread, began, at, before, length = _PROGRAM.unpack_from(record)
                code = record[_PROGRAM.size : _PROGRAM.size + 8 * length]
                self._filters.add((thread, began, at), before, code)
            elif (event := self._event(record)) is not None:
                yield event

    def lost(self) -> int:
        """Return how many events there was no room for, since they were not read in time."""
        return self._lost.value()

    def fileno(self) -> int:
        """Return a descriptor that is readable when something has come (epoll, select)."""
        return self._ring.fd

    def close(self) -> None:
        """End it."""
        for fd in self._links:
            ebpf.close(fd)
        self._links = []
        for each in (self._ring, self._lost, self._known, self._room):
            each.close()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _event(self, record: bytes) -> Ended | None:
        kind, stamp, thread, began, last, place, name, *rest = _EVENT.unpack(record)
        words, detail, ancestors = rest[:_REGISTERS], rest[_REGISTERS], rest[_REGISTERS + 1 :]
        nr = words[_ORIG_AX] & 0xFFFFFFFF
        result: int | None = 0
        if kind == _RESULT:
            result = (1 << 64) - words[_AX]
        elif kind == _SIGNAL:
            result = None
            if _SIGINFO.unpack_from(detail)[2] != _SYS_SECCOMP:
                return None  # somebody sent it
        if nr == _NO_CALL:
            return None
        if words[_CS] == _USER32_CS or (kind == _RESULT and detail.startswith(_INT_80)):
            arch, order = abi.AUDIT_ARCH_I386, (_BX, _CX, _DX, _SI, _DI, _BP)
            args = tuple(words[each] & 0xFFFFFFFF for each in order)
        else:
            arch, order = abi.AUDIT_ARCH_X86_64, (_DI, _SI, _DX, _R10, _R8, _R9)
            args = tuple(words[each] for each in order)
        pid, tid = thread >> 32, thread & 0xFFFFFFFF
        program = name.split(b"\0")[0].decode(errors="replace")
        filters = self._filters.chain(thread, began, last)
        above = tuple(dict.fromkeys(each for each in ancestors if each))
        return Ended(
            stamp, pid, tid, above, place, program, arch, nr, args, words[_IP], result, filters
        )

    def _of_results(self, errnos: Collection[int]) -> bytes:
        """Assemble what is run at the end of each call, by (struct pt_regs *, long ret)."""
        e = ebpf
        matches = [e.jump_if_equal(7, -number) for number in sorted(errnos)]
        return e.program(
            e.load(7, 1, 8),
            # each leads behind the two that follow them
            *(jump(len(matches) - place + 1) for place, jump in enumerate(matches)),
            *(e.value(0, 0), e.EXIT),
            self._record(_RESULT),
            e.jump_if_different(9, 0)(2),  # without a filter it is the kernel's own
            *(e.value(0, 0), e.EXIT),
            # In 64-bit code ``int 0x80`` makes a call of i386; only the code itself tells.
            *(e.load(3, 10, _AT + _DATA + 8 * _IP), e.add(3, -2)),
            e.read_user(_AT + _DETAIL, len(_INT_80)),
            self._write(),
        )

    def _of_signals(self) -> bytes:
        """Assemble what is run for each signal, by (int sig, struct kernel_siginfo *, ...)."""
        e = ebpf
        return e.program(
            *(e.load(7, 1, 0), e.load(6, 1, 8)),
            e.jump_if_equal(7, _SIGSYS)(2),
            *(e.value(0, 0), e.EXIT),
            self._record(_SIGNAL),
            e.move(3, 6),
            e.read_kernel(_AT + _DETAIL, _SIGINFO.size),
            self._write(),
        )

    def _of_ends(self) -> bytes:
        """Assemble what is run at the end of each thread."""
        e, member = ebpf, self._member
        return e.program(
            self._record(_END),
            *(e.move(3, 8), e.add(3, member["task_struct.seccomp"] + member["seccomp.mode"])),
            *(e.value(1, 0), e.store(10, _WORD, 1), e.read_kernel(_WORD, 4)),
            *(e.load(7, 10, _WORD), e.jump_if_different(7, _SECCOMP_MODE_DEAD)(2)),
            *(e.load(7, 10, _AT + _DATA + 8 * _AX), e.jump_if_equal(7, -errno.ENOSYS)(2)),
            *(e.value(0, 0), e.EXIT),
            self._write(),
        )

    def _record(self, kind: int) -> bytes:
        """Assemble: fill the record with who, when and what; leave the newest filter in r9."""
        e, member = ebpf, self._member
        return e.program(
            e.value(1, 0),
            *(e.store(10, at, 1) for at in range(_AT, 0, 8)),
            *(e.value(1, kind), e.store(10, _AT + _KIND, 1)),
            *(e.call(e.KTIME_GET_NS), e.store(10, _AT + _TIME, 0)),
            *(e.call(e.GET_CURRENT_PID_TGID), e.store(10, _AT + _THREAD, 0)),
            *(e.move(1, 10), e.add(1, _AT + _NAME), e.value(2, 16)),
            e.call(e.GET_CURRENT_COMM),
            *(e.call(e.GET_CURRENT_TASK_BTF), e.move(8, 0)),
            *(e.move(1, 0), e.call(e.TASK_PT_REGS), e.move(3, 0)),
            e.read_kernel(_AT + _DATA, 8 * _REGISTERS),
            *(e.move(3, 8), e.add(3, member["task_struct.start_time"])),
            e.read_kernel(_AT + _BEGAN, 8),
            self._parents(),
            *(e.move(3, 8), e.add(3, member["task_struct.nsproxy"])),
            *(e.read_kernel(_WORD, 8), e.load(3, 10, _WORD), e.add(3, member["nsproxy.mnt_ns"])),
            *(e.read_kernel(_WORD, 8), e.load(3, 10, _WORD)),
            e.add(3, member["mnt_namespace.ns"] + member["ns_common.inum"]),
            e.read_kernel(_AT + _PLACE, 4),
            *(e.move(3, 8), e.add(3, member["task_struct.seccomp"] + member["seccomp.filter"])),
            *(e.read_kernel(_AT + _FILTER, 8), e.load(9, 10, _AT + _FILTER)),
        )

    def _counts(self) -> bytes:
        """Assemble: end unless the record is of a place or process that counts."""
        e = ebpf
        looks: list[tuple[bytes, Callable[[int], bytes]]] = []
        if self._pid:
            places = (_AT + _THREAD + 4, *(_AT + _PARENTS + 4 * n for n in range(_ANCESTORS)))
            looks = [(e.load_word(7, 10, at), e.jump_if_equal(7, self._pid)) for at in places]
        elif self._places:
            word = e.load(7, 10, _AT + _PLACE)
            looks = [(word, e.jump_if_word_equal(7, place)) for place in self._places]
        text = e.program(e.value(0, 0), e.EXIT) if looks else b""
        for word, jump in reversed(looks):
            text = e.program(word, jump(len(text) // 8), text)
        return text

    def _parents(self) -> bytes:
        """Assemble: note the processes above the task r8; r3 is used for the way up."""
        e, member = ebpf, self._member
        steps = [e.store(10, _WORD, 8)]
        for place in range(_ANCESTORS):
            steps += (
                *(e.load(3, 10, _WORD), e.add(3, member["task_struct.real_parent"])),
                *(e.read_kernel(_WORD, 8), e.load(3, 10, _WORD)),
                *(
                    e.add(3, member["task_struct.tgid"]),
                    e.read_kernel(_AT + _PARENTS + 4 * place, 4),
                ),
            )
        return e.program(*steps)

    def _write(self) -> bytes:
        """Assemble: write the programs behind r9 that were not written, then the record; end."""
        e = ebpf
        lost = e.program(self._lost.increase(_SECOND), *(e.value(0, 0), e.EXIT))
        return e.program(
            self._counts(),
            *(self._code() for _ in range(_DEPTH)),
            *(e.map_of(1, self._ring.fd), e.move(2, 10), e.add(2, _AT)),
            *(e.value(3, _EVENT.size), e.value(4, 0), e.call(e.RINGBUF_OUTPUT)),
            e.jump_if_different(0, 0)(2),
            *(e.value(0, 0), e.EXIT),
            lost,
        )

    def _code(self) -> bytes:
        """Assemble: write the program of the filter r9 unless it was; r9 becomes the one before."""
        e, member = ebpf, self._member
        before = e.program(
            *(e.move(3, 9), e.add(3, member["seccomp_filter.prev"])),
            *(e.read_kernel(_WORD, 8), e.load(9, 10, _WORD)),
        )
        noted = e.program(
            *(e.map_of(1, self._known.fd), e.move(2, 10), e.add(2, _KEY)),
            *(e.move(3, 10), e.add(3, _KEY), e.value(4, 0), e.call(e.MAP_UPDATE_ELEM)),
        )
        written = e.program(
            *(e.value(1, _FILTER_CODE), e.store(6, 0, 1)),
            *(e.load(1, 10, _KEY), e.store(6, 8, 1), e.load(1, 10, _KEY + 8), e.store(6, 16, 1)),
            e.store(6, 24, 9),
            *(e.move(3, 9), e.add(3, member["seccomp_filter.prev"])),
            *(e.read_kernel(_WORD, 8), e.load(1, 10, _WORD), e.store(6, 32, 1)),
            *(e.move(3, 9), e.add(3, member["seccomp_filter.prog"])),
            *(e.read_kernel(_WORD, 8), e.load(3, 10, _WORD)),
            e.add(3, member["bpf_prog.orig_prog"]),
            *(e.read_kernel(_WORD, 8), e.load(3, 10, _WORD)),
            *(e.value(1, 0), e.store(10, _SECOND, 1)),
            *(e.add(3, member["sock_fprog_kern.len"]), e.read_kernel(_SECOND, 2)),
            *(e.load(3, 10, _WORD), e.add(3, member["sock_fprog_kern.filter"])),
            *(e.read_kernel(_WORD, 8), e.load(7, 10, _SECOND)),
            e.jump_if_not_above(7, _LONGEST)(1),
            e.value(7, 0),
            *(e.store(6, 40, 7), e.shift_left(7, 3)),
            *(e.move(1, 6), e.add(1, _PROGRAM.size), e.move(2, 7), e.load(3, 10, _WORD)),
            e.call(e.PROBE_READ_KERNEL),
            *(e.map_of(1, self._ring.fd), e.move(2, 6), e.move(3, 7), e.add(3, _PROGRAM.size)),
            *(e.value(4, 0), e.call(e.RINGBUF_OUTPUT)),
            e.jump_if_different(0, 0)(len(noted) // 8),
            noted,
        )
        room = e.program(self._room.value(_WORD), e.move(6, 0))
        unknown = e.program(room, e.jump_if_equal(6, 0)(len(written) // 8), written)
        key = e.program(
            *(e.load(1, 10, _AT + _THREAD), e.store(10, _KEY, 1)),
            *(e.load(1, 10, _AT + _BEGAN), e.store(10, _KEY + 8, 1)),
            e.store(10, _KEY + 16, 9),
            *(e.map_of(1, self._known.fd), e.move(2, 10), e.add(2, _KEY)),
            e.call(e.MAP_LOOKUP_ELEM),
        )
        body = e.program(key, e.jump_if_different(0, 0)(len(unknown) // 8), unknown, before)
        return e.program(e.jump_if_equal(9, 0)(len(body) // 8), body)
