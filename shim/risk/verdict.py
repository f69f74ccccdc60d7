"""What the filters of a live process say of a call: found once for each distinct set of them."""

from functools import lru_cache

from shim.abi import (
    AUDIT_ARCH_X86_64,
    SECCOMP_RET_ACTION_FULL,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_DATA,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_LOG,
)
from shim.bpf.emulator import verdict
from shim.bpf.outcomes import stricter, together
from shim.bpf.program import RET_K, BpfError, Insns, canonical, check, decode

_LETTING = {SECCOMP_RET_ALLOW, SECCOMP_RET_LOG}


@lru_cache(maxsize=65536)
def verdicts(programs: tuple[bytes, ...], nr: int, arch: int = AUDIT_ARCH_X86_64) -> frozenset[int]:
    """Return what ``programs``, the newest first, can answer call ``nr``; none: undecided.

    The strictest counts, by the kernel's order of actions. With no program it is let through.
    """
    try:
        return together(map(_decoded, programs), nr, arch)
    except BpfError:
        return frozenset()  # what is in force has passed the kernel's own check


def lets_through(programs: tuple[bytes, ...], nr: int) -> bool:
    """Tell whether call ``nr`` is let through whatever its arguments are."""
    found = verdicts(programs, nr)
    return bool(found) and found <= _LETTING


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
    answers = (
        canonical(k)
        for program in programs
        for code, _, _, k in _decoded(program)
        if code == RET_K and k & SECCOMP_RET_ACTION_FULL == SECCOMP_RET_ERRNO
    )
    return frozenset(answer & SECCOMP_RET_DATA for answer in answers)


@lru_cache(maxsize=1024)
def _decoded(program: bytes) -> Insns:
    insns = decode(program)
    check(insns)
    return insns
