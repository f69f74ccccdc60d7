"""What the filters of a live process say of a call: found once for each distinct set of them."""

from functools import lru_cache

from shim.abi import SECCOMP_RET_ALLOW, SECCOMP_RET_LOG
from shim.bpf.outcomes import together
from shim.bpf.program import BpfError, Insns, check, decode

_LETTING = {SECCOMP_RET_ALLOW, SECCOMP_RET_LOG}


@lru_cache(maxsize=65536)
def verdicts(programs: tuple[bytes, ...], nr: int) -> frozenset[int]:
    """Return what ``programs``, the newest first, can answer call ``nr``; none: undecided.

    The strictest counts, by the kernel's order of actions. With no program it is let through.
    """
    try:
        return together(map(_decoded, programs), nr)
    except BpfError:
        return frozenset()  # what is in force has passed the kernel's own check


def lets_through(programs: tuple[bytes, ...], nr: int) -> bool:
    """Tell whether call ``nr`` is let through whatever its arguments are."""
    found = verdicts(programs, nr)
    return bool(found) and found <= _LETTING


@lru_cache(maxsize=1024)
def _decoded(program: bytes) -> Insns:
    insns = decode(program)
    check(insns)
    return insns
