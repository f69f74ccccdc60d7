"""What the filters of a live process say of a call: found once for each distinct filter."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from shim.abi import (
    AUDIT_ARCH_X86_64,
    SECCOMP_RET_ACTION_FULL,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_DATA,
    SECCOMP_RET_ERRNO,
)
from shim.bpf.emulator import verdict
from shim.bpf.outcomes import LETTING, outcomes, stricter, strictest
from shim.bpf.program import RET_K, BpfError, Insns, canonical, check, decode

# Instructions that are kept decoded: some 30 MB. A thread has 32768 at most (kernel/seccomp.c,
# MAX_INSNS_PER_PATH).
_KEPT = 1 << 17
_decoded_programs: dict[bytes, Insns] = {}
_ends: list[float] = []  # of each limit in force, on the clock of time.process_time


class OutOfTimeError(Exception):
    """The filters of somebody are so intricate that it would take too long to judge them."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit the processor time that verdicts take in this block; an outer limit counts as well.

    OutOfTimeError: a verdict that is not known was asked for after that.
    """
    _ends.append(min([time.process_time() + seconds, *_ends[-1:]]))
    try:
        yield
    finally:
        _ends.pop()


def verdicts(programs: tuple[bytes, ...], nr: int, arch: int = AUDIT_ARCH_X86_64) -> frozenset[int]:
    """Return what ``programs``, the newest first, can answer call ``nr``; none: undecided.

    The strictest counts, by the kernel's order of actions. With no program it is let through.
    """
    return strictest(_outcomes(program, nr, arch) for program in programs)


@lru_cache(maxsize=65536)
def _outcomes(program: bytes, nr: int, arch: int) -> frozenset[int]:
    if _ends and time.process_time() > _ends[-1]:
        raise OutOfTimeError
    try:
        return outcomes(_decoded(program), nr, arch)
    except BpfError:
        return frozenset()  # what is in force has passed the kernel's own check


def lets_through(programs: tuple[bytes, ...], nr: int) -> bool:
    """Tell whether call ``nr`` is let through whatever its arguments are."""
    found = verdicts(programs, nr)
    return bool(found) and found <= LETTING


def verdict_on(
    programs: tuple[bytes, ...], nr: int, arch: int, args: tuple[int, ...], ip: int
) -> int | None:
    """Return what ``programs``, the newest first, answer one call with these arguments.

    None: a program that the kernel would not have taken.
    """
    strictest = SECCOMP_RET_ALLOW
    try:
        for program in map(_decoded, programs):
            strictest = stricter(strictest, canonical(verdict(program, nr, arch, args, ip)))
    except BpfError:
        return None
    return strictest


def errnos(programs: tuple[bytes, ...]) -> frozenset[int]:
    """Return every errno that ``programs`` can answer a call with."""
    return frozenset().union(*map(_errnos, programs))


@lru_cache(maxsize=256)
def _errnos(program: bytes) -> frozenset[int]:
    answers = (
        canonical(k)
        for code, _, _, k in _decoded(program)
        if code == RET_K and k & SECCOMP_RET_ACTION_FULL == SECCOMP_RET_ERRNO
    )
    return frozenset(answer & SECCOMP_RET_DATA for answer in answers)


def _decoded(program: bytes) -> Insns:
    found = _decoded_programs.get(program)
    if found is None:
        found = decode(program)
        check(found)
        if sum(map(len, _decoded_programs.values())) + len(found) > _KEPT:
            _decoded_programs.clear()
        _decoded_programs[program] = found
    return found
