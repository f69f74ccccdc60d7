"""The least of bpf(2): run a program whenever a tracepoint is passed, and read its ring.

No compiler and no library of the host is needed, nor tracefs. Root's, from Linux 5.15 on.
"""

import ctypes
import mmap
import os
import struct
from collections.abc import Callable, Iterator

from shim.errors import ShimError
from shim.host.libc import syscall

_NR_BPF = 321
# include/uapi/linux/bpf.h: enum bpf_cmd, bpf_map_type, bpf_prog_type
_MAP_CREATE, _MAP_LOOKUP_ELEM, _PROG_LOAD, _RAW_TRACEPOINT_OPEN = 0, 1, 5, 17
_ARRAY, _PERCPU_ARRAY, _LRU_HASH, _RINGBUF = 2, 6, 9, 27
_RAW_TRACEPOINT = 17
_BUSY, _DISCARDED = 1 << 31, 1 << 30  # BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT

# Helpers, by number
MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, KTIME_GET_NS = 1, 2, 5
GET_CURRENT_PID_TGID, GET_CURRENT_COMM = 14, 16
PROBE_READ_USER, PROBE_READ_KERNEL, RINGBUF_OUTPUT = 112, 113, 130
GET_CURRENT_TASK_BTF, TASK_PT_REGS = 158, 175

Insn = bytes
_PSEUDO_MAP_FD = 1


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> Insn:
    """Return one eBPF instruction (Documentation/bpf/standardization/instruction-set.rst)."""
    return struct.pack("=BBhi", code, dst | src << 4, off, imm)


def move(dst: int, src: int) -> Insn:
    """Return ``dst = src``, both registers."""
    return insn(0xBF, dst, src)


def value(dst: int, number: int) -> Insn:
    """Return ``dst = number``, of 32 bits with their sign."""
    return insn(0xB7, dst, imm=number)


def add(dst: int, number: int) -> Insn:
    """Return ``dst += number``."""
    return insn(0x07, dst, imm=number)


def load_word(dst: int, src: int, off: int) -> Insn:
    """Return ``dst = *(u32 *)(src + off)``."""
    return insn(0x61, dst, src, off)


def shift_left(dst: int, count: int) -> Insn:
    """Return ``dst <<= count``."""
    return insn(0x67, dst, imm=count)


def load(dst: int, src: int, off: int) -> Insn:
    """Return ``dst = *(u64 *)(src + off)``."""
    return insn(0x79, dst, src, off)


def store(dst: int, off: int, src: int) -> Insn:
    """Return ``*(u64 *)(dst + off) = src``."""
    return insn(0x7B, dst, src, off)


def call(helper: int) -> Insn:
    """Return a call of a helper: arguments in r1 to r5, its answer in r0."""
    return insn(0x85, imm=helper)


def jump_if_equal(dst: int, number: int) -> Callable[[int], Insn]:
    """Return what makes ``if dst == number: skip so many``; the number is given its sign."""
    return lambda skipped: insn(0x15, dst, off=skipped, imm=number)


def jump_if_different(dst: int, number: int) -> Callable[[int], Insn]:
    """Return what makes ``if dst != number: skip so many``; the number is given its sign."""
    return lambda skipped: insn(0x55, dst, off=skipped, imm=number)


def jump_if_word_equal(dst: int, number: int) -> Callable[[int], Insn]:
    """Return what makes ``if (u32)dst == number: skip so many``; the number has no sign."""
    signed = number - (1 << 32) if number >> 31 else number
    return lambda skipped: insn(0x16, dst, off=skipped, imm=signed)


def jump_if_not_above(dst: int, number: int) -> Callable[[int], Insn]:
    """Return what makes ``if dst <= number: skip so many``, without a sign."""
    return lambda skipped: insn(0xB5, dst, off=skipped, imm=number)


def read_kernel(at: int, size: int) -> Insn:
    """Return instructions that copy ``size`` bytes of the kernel, at r3, to the stack."""
    return _copied(at, size, PROBE_READ_KERNEL)


def read_user(at: int, size: int) -> Insn:
    """Return instructions that copy ``size`` bytes of the thread, at r3, to the stack."""
    return _copied(at, size, PROBE_READ_USER)


def _copied(at: int, size: int, helper: int) -> Insn:
    return program(move(1, 10), add(1, at), value(2, size), call(helper))


def map_of(dst: int, fd: int) -> Insn:
    """Return the two instructions that put the map ``fd`` into a register."""
    return insn(0x18, dst, _PSEUDO_MAP_FD, imm=fd) + insn(0)


EXIT = insn(0x95)


def attach(text: bytes, tracepoint: str) -> int:
    """Run a program whenever ``tracepoint`` is passed, for as long as what is given is open.

    Its context are the tracepoint's arguments, as words. ShimError: the kernel refuses it.
    """
    # The kernel lends its helpers to programs under the GPL only: what is loaded from here may be
    # had under the MIT licence or the GPL-2.0, beside the licence of the rest.
    licence = ctypes.create_string_buffer(b"Dual MIT/GPL")
    code = ctypes.create_string_buffer(text, len(text))
    program = _bpf(
        _PROG_LOAD,
        struct.pack(
            "=IIQQ",
            *(_RAW_TRACEPOINT, len(text) // 8),
            *(ctypes.addressof(code), ctypes.addressof(licence)),
        ),
    )
    name = ctypes.create_string_buffer(tracepoint.encode())
    try:
        return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("=QI", ctypes.addressof(name), program))
    finally:
        os.close(program)  # the link keeps it


class Counter:
    """One number that programs of the kernel add to."""

    def __init__(self) -> None:
        self.fd = _bpf(_MAP_CREATE, struct.pack("=IIII", _ARRAY, 4, 8, 1))

    def value(self) -> int:
        """Return what it is now."""
        key, found = ctypes.c_uint(0), ctypes.c_ulonglong(0)
        _bpf(
            _MAP_LOOKUP_ELEM,
            struct.pack("=IxxxxQQ", self.fd, ctypes.addressof(key), ctypes.addressof(found)),
        )
        return found.value

    def increase(self, fp_offset: int) -> bytes:
        """Return instructions that add one; they use r0 to r5 and eight bytes of the stack."""
        return b"".join(
            (
                *(value(1, 0), store(10, fp_offset, 1)),
                *(map_of(1, self.fd), move(2, 10), add(2, fp_offset)),
                call(MAP_LOOKUP_ELEM),
                jump_if_equal(0, 0)(2),
                value(1, 1),
                insn(0xDB, 0, 1),  # lock *(u64 *)r0 += r1
            )
        )

    def close(self) -> None:
        """Give it back."""
        os.close(self.fd)


class Table:
    """A table of the kernel's, for as long as it is open: of very many keys the oldest go."""

    def __init__(self, entries: int, *, key: int, value: int) -> None:
        """Make one; ``key`` and ``value`` are sizes in bytes."""
        self.fd = _bpf(_MAP_CREATE, struct.pack("=IIII", _LRU_HASH, key, value, entries))

    def close(self) -> None:
        """Give it back."""
        os.close(self.fd)


class Scratch:
    """Room for a program beside its stack, on each processor its own."""

    def __init__(self, size: int) -> None:
        self.fd = _bpf(_MAP_CREATE, struct.pack("=IIII", _PERCPU_ARRAY, 4, size, 1))

    def value(self, fp_offset: int) -> bytes:
        """Return instructions that put its address into r0; they use r1, r2 and four bytes."""
        return program(
            *(value(1, 0), store(10, fp_offset, 1)),
            *(map_of(1, self.fd), move(2, 10), add(2, fp_offset), call(MAP_LOOKUP_ELEM)),
        )

    def close(self) -> None:
        """Give it back."""
        os.close(self.fd)


class Ring:
    """A ring that programs of the kernel write records to (Documentation/bpf/ringbuf.rst)."""

    def __init__(self, size: int) -> None:
        """Make one of ``size`` bytes, a power of two of whole pages."""
        page = mmap.PAGESIZE
        self.fd = _bpf(_MAP_CREATE, struct.pack("=IIII", _RINGBUF, 0, 0, size))
        self._size = size
        self._consumed = mmap.mmap(self.fd, page)
        # The producer's place, then the data twice in a row: a record is never in two parts.
        read = mmap.PROT_READ
        self._data = mmap.mmap(self.fd, page + 2 * size, mmap.MAP_SHARED, read, offset=page)

    def records(self) -> Iterator[bytes]:
        """Give the records that are complete by now; what is given is out of the ring.

        What comes meanwhile is for the next time: who writes without end must not keep us.
        """
        page, mask = mmap.PAGESIZE, self._size - 1
        (at,) = struct.unpack_from("=Q", self._consumed)
        (end,) = struct.unpack_from("=Q", self._data)
        while at < end:
            start = page + (at & mask)
            (header,) = struct.unpack_from("=I", self._data, start)
            if header & _BUSY:
                return
            size = header & ~_DISCARDED
            record = self._data[start + 8 : start + 8 + size]
            at += (8 + size + 7) // 8 * 8
            struct.pack_into("=Q", self._consumed, 0, at)
            if not header & _DISCARDED:
                yield record

    def close(self) -> None:
        """Give it back."""
        self._consumed.close()
        self._data.close()
        os.close(self.fd)


def program(*parts: bytes) -> bytes:
    """Return instructions, and groups of them, in a row."""
    return b"".join(parts)


def close(fd: int) -> None:
    """Give a descriptor of any of these back."""
    os.close(fd)


def _bpf(command: int, attributes: bytes) -> int:
    # The kernel takes a shorter union than its own for one whose rest is zero.
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    try:
        return syscall(_NR_BPF, command, ctypes.addressof(buffer), len(buffer))
    except OSError as error:
        raise ShimError(
            f"the kernel refuses it ({os.strerror(error.errno or 0)})",
            subject="bpf",
            hint="it takes root outside of containers, and Linux 5.15 or newer",
        ) from error
