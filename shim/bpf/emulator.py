"""Run a filter as the kernel would, for one system call or for all that share some words.

The container start path imports this module. What it does with values, ``shim.bpf.symbolic`` does
with functions of the input: another arithmetic, other registers, and no path of its own for each
state, so the two share nothing but the instructions.
"""

from shim import abi
from shim.bpf.program import (
    BRANCHES,
    JA,
    JEQ_K,
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
    BpfError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.bpf.program import Insns

_WORD = 0xFFFFFFFF
_EMPTY: "tuple[int | None, ...]" = (None,) * abi.BPF_MEMWORDS


class Undecided(Exception):  # noqa: N818 - what cannot be told is nobody's error
    """A value that is not known is returned, or there are too many paths."""


def verdict(
    insns: "Insns", nr: int, arch: int, args: "Sequence[int]" = (0, 0, 0, 0, 0, 0), ip: int = 0
) -> int:
    """Return the 32-bit value that the program returns for one system call.

    ``args`` are six 64-bit values, ``ip`` the instruction pointer (struct seccomp_data, little
    endian). The program must have passed ``program.check``; BpfError where the kernel has no
    answer.
    """
    [value] = follow(insns, _words(nr, arch, args, ip))
    return value


def follow(
    insns: "Insns", data: "Sequence[int | None]", limit: int = abi.BPF_MAXINSNS
) -> "set[int]":
    """Return every value that the program can return, and more where no input leads down a path.

    ``data`` are the words of struct seccomp_data, None where one is not known: where a branch
    looks at that, both of its sides are followed. All known, there is one path. ``limit`` counts
    instructions. Undecided; BpfError: not admitted.
    """
    found = set()
    # A state: the next instruction, A, X and M[]; None for a value that is not known.
    # net/core/filter.c bpf_convert_filter() clears A and X first
    start: tuple[int, int | None, int | None, tuple[int | None, ...]] = (0, 0, 0, _EMPTY)
    waiting = [start]
    seen = {start}
    while waiting:
        pc, a, x, memory = waiting.pop()
        while True:
            limit -= 1
            if limit < 0:
                raise Undecided
            code, jt, jf, k = insns[pc]
            pc += 1
            if code == JEQ_K and a is not None:  # nearly all of a real filter
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
                a = data[k >> 2]
            elif code == RET_K:
                found.add(k)
                break
            elif code == RET_A:
                if a is None:
                    raise Undecided
                found.add(a)
                break
            elif code == JA:
                pc += k
            elif code == NEG:
                a = None if a is None else -a & _WORD
            elif code & 7 == abi.BPF_ALU:
                operand = x if code & abi.BPF_X else k
                if code & 0xF0 == abi.BPF_DIV and not operand:
                    found.add(0)  # bpf_convert_filter(): a division by X = 0 ends it with 0
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
                raise BpfError(
                    f"instruction {pc - 1} has code {code:#06x}, which seccomp does not admit"
                )
    return found


def arithmetic(op: int, a: int, operand: int) -> int:
    """Return ``a op operand`` on 32-bit words; a shift counts modulo 32, DIV needs an operand."""
    if op == abi.BPF_AND:
        return a & operand
    if op == abi.BPF_OR:
        return a | operand
    if op == abi.BPF_XOR:
        return a ^ operand
    if op == abi.BPF_ADD:
        return a + operand & _WORD
    if op == abi.BPF_SUB:
        return a - operand & _WORD
    if op == abi.BPF_MUL:
        return a * operand & _WORD
    if op == abi.BPF_DIV:
        return a // operand
    # 32-bit shifts use five bits of the count: kernel/bpf/core.c SHT(), and the JITs' machines
    if op == abi.BPF_LSH:
        return a << (operand & 31) & _WORD
    return a >> (operand & 31)


def holds(code: int, a: int, operand: int) -> bool:
    """Tell whether the jump ``code`` is taken."""
    op = code & 0xF0
    if op == abi.BPF_JEQ:
        return a == operand
    if op == abi.BPF_JGE:
        return a >= operand
    if op == abi.BPF_JGT:
        return a > operand
    return a & operand != 0


def _words(nr: int, arch: int, args: "Sequence[int]", ip: int) -> list[int]:
    """Lay out struct seccomp_data as its sixteen little-endian words."""
    words = [nr & _WORD, arch & _WORD, ip & _WORD, ip >> 32 & _WORD]
    for value in args:
        words += (value & _WORD, value >> 32 & _WORD)
    return words
