"""Show a program as text, one instruction a line, in the words of the kernel's bpf_asm."""

from shim import abi
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
    Insn,
    Insns,
    action_name,
)

_HALVES = [f"arg{index}.{half}" for index in range(6) for half in ("low", "high")]
_FIELDS = ("nr", "arch", "ip.low", "ip.high", *_HALVES)
_ALU = {
    abi.BPF_ADD: "add",
    abi.BPF_SUB: "sub",
    abi.BPF_MUL: "mul",
    abi.BPF_DIV: "div",
    abi.BPF_OR: "or",
    abi.BPF_AND: "and",
    abi.BPF_LSH: "lsh",
    abi.BPF_RSH: "rsh",
    abi.BPF_XOR: "xor",
}
_JUMPS = {abi.BPF_JEQ: "jeq", abi.BPF_JGT: "jgt", abi.BPF_JGE: "jge", abi.BPF_JSET: "jset"}
_PLAIN = {
    TAX: "tax",
    TXA: "txa",
    NEG: "neg",
    RET_A: "ret a",
    LD_LEN: "ld #len",
    LDX_LEN: "ldx #len",
}
_MEMORY = {LD_MEM: "ld", LDX_MEM: "ldx", abi.BPF_ST: "st", abi.BPF_STX: "stx"}


def disassemble(insns: Insns) -> str:
    """Give the program as text; jumps show the instructions they go to, if so and if not."""
    return "\n".join(f"{pc:04}: {_line(pc, insn)}" for pc, insn in enumerate(insns))


def _line(pc: int, insn: Insn) -> str:
    code, jt, jf, k = insn
    operand = "x" if code & abi.BPF_X else f"#{k:#x}"
    if code in _PLAIN:
        return _PLAIN[code]
    if code == LD_ABS and k < abi.SECCOMP_DATA_SIZE and not k & 3:
        return f"ld {_FIELDS[k // 4]}"
    if code == RET_K:
        return f"ret {action_name(k)}"
    if code == JA:
        return f"ja {pc + 1 + k}"
    if code in BRANCHES:
        return f"{_JUMPS[code & 0xF0]} {operand}, {pc + 1 + jt}, {pc + 1 + jf}"
    if code in _MEMORY:
        return f"{_MEMORY[code]} M[{k}]"
    if code in (LD_IMM, LDX_IMM):
        return f"{'ld' if code == LD_IMM else 'ldx'} #{k:#x}"
    if code < 0x100 and code & 7 == abi.BPF_ALU and code & 0xF0 in _ALU:
        return f"{_ALU[code & 0xF0]} {operand}"
    return f"? {code:#06x} {jt} {jf} {k:#x}"
