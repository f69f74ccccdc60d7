"""Follow every path of a filter at once: its verdict as a function of ``struct seccomp_data``."""

from shim import abi
from shim.bpf import bitvector
from shim.bpf.bdd import FALSE, TRUE, Diagram
from shim.bpf.bitvector import Word
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
    Insns,
    canonical,
)

# The order of the input words in the diagram, as indices into struct seccomp_data: arch and nr
# first, so that what lies below them is the residual program of one system call; of an argument
# the high half before the low one.
ORDER = (1, 0, *[4 + 2 * i + half for i in range(6) for half in (1, 0)], 3, 2)

# What each word of a state costs: to build it, and to find it among those that were walked.
_STATE_STEPS = 5
_A, _X = 16, 17
_Registers = tuple[Word | None, ...]  # M[0] to M[15], A, X; None where nothing reads it any more
_State = tuple[int, _Registers]
_ENDED: _State = (-1, ())  # a division by X = 0 ends the program with 0


def verdicts(diagram: Diagram, insns: Insns, known: "dict[int, int] | None" = None) -> int:
    """Return the node of the canonical verdict of a program that ``bpf.check`` has passed.

    ``known`` are words of struct seccomp_data with the value that they have, by their index.
    TooLarge: the program computes something whose diagram outgrows the limit.
    """
    walker = _Walker(diagram, insns, known or {})
    zero = bitvector.constant(0)
    start = walker.state(0, (None,) * 16 + (zero, zero))
    plans: dict[_State, tuple[int, _State, _State] | int] = {}
    done: dict[_State, int] = {}
    stack = [start]
    while stack:
        state = stack[-1]
        plan = plans.get(state)
        if plan is None:
            plan = plans[state] = walker.run(*state)
        if isinstance(plan, int):
            done[state] = plan
        else:
            condition, yes, no = plan
            missing = [s for s in (yes, no) if s not in done]
            if missing:
                stack += missing
                continue
            done[state] = diagram.ite(condition, done[yes], done[no])
        stack.pop()
    return done[start]


class _Walker:
    """One program, run from branch to branch."""

    def __init__(self, diagram: Diagram, insns: Insns, known: dict[int, int]) -> None:
        self.diagram = diagram
        self.insns = insns
        self.live = _liveness(insns)
        rank = {word: place for place, word in enumerate(ORDER)}
        self.inputs = [
            bitvector.constant(known[word])
            if word in known
            else bitvector.word_input(diagram, rank[word])
            for word in range(16)
        ]

    def state(self, pc: int, registers: _Registers) -> _State:
        """Forget what no path from ``pc`` on reads: equal states are walked once."""
        live = self.live[pc]
        return pc, tuple([word if live >> i & 1 else None for i, word in enumerate(registers)])

    def run(self, pc: int, registers: _Registers) -> tuple[int, _State, _State] | int:
        """Go on to the next branch (condition, state if so, state if not) or the verdict (node)."""
        diagram = self.diagram
        diagram.spend(_STATE_STEPS * (1 + sum(word is not None for word in registers)))
        if pc < 0:
            return diagram.leaf(canonical(0))
        cells: list[Word | None] = list(registers)
        while True:
            code, jt, jf, k = self.insns[pc]
            pc += 1
            diagram.spend()
            if code == RET_K:
                return diagram.leaf(canonical(k))
            if code == RET_A:
                return bitvector.value_of(diagram, _known(cells[_A]), canonical)
            if code == JA:
                pc += k
            elif code in BRANCHES:
                other = _known(cells[_X]) if code & abi.BPF_X else bitvector.constant(k)
                condition = bitvector.compare(diagram, code & 0xF0, _known(cells[_A]), other)
                after = tuple(cells)
                yes = self.state(pc + (jf if condition == FALSE else jt), after)
                no = self.state(pc + (jt if condition == TRUE else jf), after)
                return condition, yes, no
            elif code & 7 == abi.BPF_ALU and code != NEG:
                a = _known(cells[_A])
                other = _known(cells[_X]) if code & abi.BPF_X else bitvector.constant(k)
                cells[_A] = bitvector.calculate(diagram, code & 0xF0, a, other)
                if code & 0xF0 == abi.BPF_DIV:
                    condition = bitvector.compare(
                        diagram, abi.BPF_JEQ, other, bitvector.constant(0)
                    )
                    if condition != FALSE:
                        return condition, _ENDED, self.state(pc, tuple(cells))
            else:
                self._move(code, k, cells)

    def _move(self, code: int, k: int, cells: list[Word | None]) -> None:
        if code == LD_ABS:
            cells[_A] = self.inputs[k >> 2]
        elif code in (LD_IMM, LD_LEN):
            cells[_A] = bitvector.constant(k if code == LD_IMM else abi.SECCOMP_DATA_SIZE)
        elif code in (LDX_IMM, LDX_LEN):
            cells[_X] = bitvector.constant(k if code == LDX_IMM else abi.SECCOMP_DATA_SIZE)
        elif code == LD_MEM:
            cells[_A] = cells[k]
        elif code == LDX_MEM:
            cells[_X] = cells[k]
        elif code == abi.BPF_ST:
            cells[k] = cells[_A]
        elif code == abi.BPF_STX:
            cells[k] = cells[_X]
        elif code == TAX:
            cells[_X] = cells[_A]
        elif code == TXA:
            cells[_A] = cells[_X]
        elif code == NEG:
            zero = bitvector.constant(0)
            cells[_A] = bitvector.calculate(self.diagram, abi.BPF_SUB, zero, _known(cells[_A]))


def _known(word: Word | None) -> Word:
    """Return a register that is read here, hence live."""
    if word is None:
        raise AssertionError("a register that is read was forgotten")
    return word


def _liveness(insns: Insns) -> list[int]:
    """Tell which registers some path from each instruction reads: bit i for ``_Registers[i]``."""
    a, x = 1 << _A, 1 << _X
    live = [0] * len(insns)
    for pc in range(len(insns) - 1, -1, -1):
        code, jt, jf, k = insns[pc]
        if code in (RET_K, RET_A):
            live[pc] = a if code == RET_A else 0
        elif code == JA:
            live[pc] = live[pc + 1 + k]
        elif code in BRANCHES:
            live[pc] = live[pc + 1 + jt] | live[pc + 1 + jf] | a | (x if code & abi.BPF_X else 0)
        else:
            reads, writes = _effect(code, k, a, x)
            live[pc] = live[pc + 1] & ~writes | reads
    return live


def _effect(code: int, k: int, a: int, x: int) -> tuple[int, int]:
    """Return the registers that an instruction reads and the one that it overwrites."""
    if code & 7 == abi.BPF_ALU:
        return (a | x if code != NEG and code & abi.BPF_X else a), 0
    cell = 1 << (k & 15)
    return {
        LD_MEM: (cell, a),
        LDX_MEM: (cell, x),
        LDX_IMM: (0, x),
        LDX_LEN: (0, x),
        abi.BPF_ST: (a, cell),
        abi.BPF_STX: (x, cell),
        TAX: (a, x),
        TXA: (x, a),
    }.get(code, (0, a))
