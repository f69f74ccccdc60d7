"""For which arguments a filter answers a call otherwise than by letting it through. Pure."""

from collections.abc import Iterable

from shim import abi
from shim.bpf.equivalence import difference
from shim.bpf.program import LD_ABS, LD_IMM, RET_K, Insns, encode

_JEQ = abi.BPF_JMP | abi.BPF_JEQ | abi.BPF_K
_ALLOW = (RET_K, 0, 0, abi.SECCOMP_RET_ALLOW)
_MOST = 12


def refused(
    programs: Iterable[Insns], number: int, arch: int = abi.AUDIT_ARCH_X86_64
) -> list[tuple[int, str]]:
    """Return the verdicts of each program that let call ``number`` not pass, and when it has them.

    The condition is empty where it holds always. No more than a dozen are told, and none where the
    program computes more than can be followed.
    """
    found: list[tuple[int, str]] = []
    for insns in programs:
        alone: Insns = [
            (LD_ABS, 0, 0, abi.SECCOMP_DATA_ARCH),
            (_JEQ, 0, 2, arch),
            (LD_ABS, 0, 0, abi.SECCOMP_DATA_NR),
            (_JEQ, 1, 0, number),
            _ALLOW,
            (LD_IMM, 0, 0, 0),
            *insns,
        ]
        changes = difference(encode([_ALLOW]), encode(alone)).changes
        found += [(change.after, change.condition) for change in changes]
    return list(dict.fromkeys(found))[:_MOST]
