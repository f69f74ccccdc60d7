"""What a filter can answer one system call, whatever its arguments and instruction pointer are.

The container start path imports this module. Number and architecture are known, all else is not:
where a branch looks at what is not known, both of its sides are followed. One verdict on all of
them is exact, and every filter made from a profile without conditions gives one. Several may be too
many (a path that no arguments lead down), so then the whole function is made, as for a proof.
"""

from shim import abi
from shim.bpf.emulator import arithmetic, holds
from shim.bpf.program import (
    BRANCHES,
    JA,
    LD_ABS,
    LD_IMM,
    LD_LEN,
    LD_MEM,
    LDX_IMM,
    LDX_LEN,
    LDX_MEM,
    NEG,
    RET_A,
    RET_K,
    TAX,
    TXA,
    action_name,
    canonical,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from shim.bpf.program import Insns

# Instructions followed, and steps of the proof, before it gives up: 20 ms and a tenth of a second.
# Docker's default profile takes some 100 instructions for a call.
_INSTRUCTIONS = 50_000
_WORK = 20_000

_WORD = 0xFFFFFFFF
_JEQ_K = abi.BPF_JMP | abi.BPF_JEQ | abi.BPF_K
_EMPTY: "tuple[int | None, ...]" = (None,) * abi.BPF_MEMWORDS


def outcomes(insns: "Insns", nr: int, arch: int = abi.AUDIT_ARCH_X86_64) -> "frozenset[int]":
    """Give every canonical verdict that the program has for some arguments of call ``nr``.

    Exactly those, or none at all where that cannot be decided within the limits. The program must
    have passed ``bpf.check``.
    """
    found = _followed(insns, nr, arch)
    return found if len(found) == 1 else _exactly(insns, nr, arch)


def together(programs: "Iterable[Insns]", nr: int) -> "frozenset[int]":
    """Give the verdicts of several filters in force, the newest first: the strictest counts.

    Of equal ones the newest does; the actions are ordered as signed numbers (kernel/seccomp.c,
    seccomp_run_filters). None at all: it cannot be decided. Exact where at most one of them has
    several; they let the call through exactly if each does.
    """
    strictest = frozenset((abi.SECCOMP_RET_ALLOW,))
    for program in programs:
        here = outcomes(program, nr)
        strictest = frozenset(
            other if _signed(other) < _signed(verdict) else verdict
            for verdict in strictest
            for other in here
        )
    return strictest


def names(verdicts: "Iterable[int]") -> str:
    """Name verdicts: ``ALLOW``, ``ERRNO(1) or KILL_PROCESS``; ``undecided`` if there are none."""
    return " or ".join(sorted(map(action_name, verdicts))) or "undecided"


def _followed(insns: "Insns", nr: int, arch: int) -> "frozenset[int]":
    """Give a set that holds every verdict, or nothing where a value or the limit forbids it."""
    found = set()
    # A state: the next instruction, A, X and M[]; None for a value that is not known.
    start: tuple[int, int | None, int | None, tuple[int | None, ...]] = (0, 0, 0, _EMPTY)
    waiting = [start]
    seen = {start}
    left = _INSTRUCTIONS
    while waiting:
        pc, a, x, memory = waiting.pop()
        while True:
            left -= 1
            if left < 0:
                return frozenset()
            code, jt, jf, k = insns[pc]
            pc += 1
            if code == _JEQ_K and a is not None:  # nearly all of a real filter
                pc += jt if a == k else jf
            elif code in BRANCHES:
                operand = x if code & abi.BPF_X else k
                if a is not None and operand is not None:
                    pc += jt if holds(code, a, operand) else jf
                    continue
                for target in (pc + jt, pc + jf):
                    state = (target, a, x, memory)
                    if state not in seen:
                        seen.add(state)
                        waiting.append(state)
                break
            elif code == LD_ABS:
                a = nr if k == abi.SECCOMP_DATA_NR else arch if k == abi.SECCOMP_DATA_ARCH else None
            elif code == RET_K:
                found.add(canonical(k))
                break
            elif code == RET_A:
                if a is None:
                    return frozenset()
                found.add(canonical(a))
                break
            elif code == JA:
                pc += k
            elif code == NEG:
                a = None if a is None else -a & _WORD
            elif code & 7 == abi.BPF_ALU:
                operand = x if code & abi.BPF_X else k
                if code & 0xF0 == abi.BPF_DIV and not operand:
                    found.add(canonical(0))  # a division by X = 0 ends the program with 0
                    if operand == 0:
                        break
                unknown = a is None or operand is None
                a = None if unknown else arithmetic(code & 0xF0, a, operand)  # type: ignore[arg-type]
            elif code in (abi.BPF_ST, abi.BPF_STX):
                memory = (*memory[:k], a if code == abi.BPF_ST else x, *memory[k + 1 :])
            elif code == LD_MEM:
                a = memory[k]
            elif code == LDX_MEM:
                x = memory[k]
            elif code == LD_IMM:
                a = k
            elif code == LDX_IMM:
                x = k
            elif code == LD_LEN:
                a = abi.SECCOMP_DATA_SIZE
            elif code == LDX_LEN:
                x = abi.SECCOMP_DATA_SIZE
            elif code == TAX:
                x = a
            elif code == TXA:
                a = x
            else:
                raise AssertionError(f"bpf.check has let code {code:#06x} pass")
    return frozenset(found)


def _exactly(insns: "Insns", nr: int, arch: int) -> "frozenset[int]":
    """Give the verdicts by the proof's means, which no ordinary start imports."""
    from shim.bpf.bdd import Diagram, TooLarge
    from shim.bpf.symbolic import verdicts

    diagram = Diagram(_WORK)
    try:
        root = verdicts(
            diagram, insns, {abi.SECCOMP_DATA_NR // 4: nr, abi.SECCOMP_DATA_ARCH // 4: arch}
        )
    except TooLarge:
        return frozenset()
    return frozenset(diagram.values(root))  # type: ignore[arg-type]  # canonical ones


def _signed(verdict: int) -> int:
    action = verdict & abi.SECCOMP_RET_ACTION_FULL
    return action - (1 << 32) if action >> 31 else action
