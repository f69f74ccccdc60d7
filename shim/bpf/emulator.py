"""Run a filter as the kernel would for one system call."""

from shim import abi
from shim.bpf.program import (
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
    BpfError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.bpf.program import Insns

_WORD = 0xFFFFFFFF
_JEQ_K = abi.BPF_JMP | abi.BPF_JEQ | abi.BPF_K


def verdict(
    insns: "Insns", nr: int, arch: int, args: "Sequence[int]" = (0, 0, 0, 0, 0, 0), ip: int = 0
) -> int:
    """Give the 32-bit value that the program returns for one system call.

    ``args`` are six 64-bit values, ``ip`` the instruction pointer (struct seccomp_data, little
    endian). The program must have passed ``bpf.check``; BpfError where the kernel has no answer.
    """
    data = _words(nr, arch, args, ip)
    memory = [0] * abi.BPF_MEMWORDS
    # net/core/filter.c bpf_convert_filter() clears A and X first
    a = x = pc = 0
    while True:
        code, jt, jf, k = insns[pc]
        pc += 1
        if code == _JEQ_K:  # nearly all of a real filter
            pc += jt if a == k else jf
        elif code == JA:
            pc += k
        elif code & 7 == abi.BPF_JMP:
            pc += jt if holds(code, a, x if code & abi.BPF_X else k) else jf
        elif code == LD_ABS:
            a = data[k >> 2]
        elif code == RET_K:
            return k
        elif code == RET_A:
            return a
        elif code == NEG:
            a = -a & _WORD
        elif code & 7 == abi.BPF_ALU:
            operand = x if code & abi.BPF_X else k
            if operand == 0 and code & 0xF0 == abi.BPF_DIV:
                return 0  # bpf_convert_filter(): a division by X = 0 ends the program with 0
            a = arithmetic(code & 0xF0, a, operand)
        elif code == LD_MEM:
            a = memory[k]
        elif code == LDX_MEM:
            x = memory[k]
        elif code == abi.BPF_ST:
            memory[k] = a
        elif code == abi.BPF_STX:
            memory[k] = x
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


def arithmetic(op: int, a: int, operand: int) -> int:
    """Give ``a op operand`` on 32-bit words; a shift counts modulo 32, DIV needs an operand."""
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
