"""Prove what distinguishes two filters: every class of system calls whose verdict differs.

Both loop-free programs become functions of all 512 bits of ``struct seccomp_data`` (decision
diagrams), so nothing is sampled and two filters are equal exactly if they are the same node. All
that seccomp admits is followed exactly, arithmetic on unknown values included; only the size of the
work is limited, and what exceeds it is reported as not decided.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from shim import abi
from shim.bpf.bdd import Diagram, TooLarge
from shim.bpf.program import action_name, check, decode
from shim.bpf.ranges import Region, regions
from shim.bpf.symbolic import ORDER, verdicts

# Steps of work and classes listed before the proof gives up. Docker's default profile for three
# architectures takes under 100 000 steps, a fifth of a second; all of them take a few seconds.
WORK = 2_000_000
CLASSES = 2_000

ARCHITECTURES = {
    abi.AUDIT_ARCH_X86_64: "x86_64",
    abi.AUDIT_ARCH_I386: "i386",
    abi.AUDIT_ARCH_AARCH64: "aarch64",
    abi.AUDIT_ARCH_ARM: "arm",
    # include/uapi/linux/audit.h; the bits are of the byte order and of 64-bit programs
    0x4: "m68k",
    0x8: "mips",
    0xF: "parisc",
    0x14: "ppc",
    0x16: "s390",
    0x2A: "sh",
    0x40000008: "mips",
    0x4000002A: "sh",
    0x80000008: "mips64",
    0x8000000F: "parisc64",
    0x80000015: "ppc64",
    0x80000016: "s390x",
    0xA0000008: "mips64n32",
    0xC0000008: "mips64",
    0xC0000015: "ppc64",
    0xC00000F3: "riscv64",
    0xC0000102: "loongarch64",
    0xE0000008: "mips64n32",
}

_UNDECIDED = "the filters compute more than the proof may follow"
_TOO_MANY = f"more than {CLASSES} classes of calls differ"

_ARGUMENTS = {
    rank: f"{'ip' if word < 4 else f'arg{word // 2 - 2}'}{'.high' if word & 1 else '.low'}"
    for rank, word in enumerate(ORDER)
}


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """One class of system calls whose verdict differs.

    ``arch`` and ``nr`` are the audit architecture and the number; x32 calls are numbers of x86_64
    with bit 0x40000000 set. ``condition`` is empty, or says for which arguments; its words are the
    32-bit halves of the six arguments and of the instruction pointer. ``before`` and ``after`` are
    canonical return values.
    """

    arch: Region
    nr: Region
    condition: str
    before: int
    after: int

    @property
    def arch_name(self) -> str:
        """Name the architecture as uname does, ``x32`` included, or give its numbers."""
        value = self.arch.single
        if value is None or value not in ARCHITECTURES:
            return f"arch {self.arch}"
        if value == abi.AUDIT_ARCH_X86_64 and self.is_x32:
            return "x32"
        return ARCHITECTURES[value]

    @property
    def is_x32(self) -> bool:
        """Tell whether all its calls are of the x32 ABI."""
        bit = abi.X32_SYSCALL_BIT
        return (
            self.arch.single == abi.AUDIT_ARCH_X86_64
            and bit <= self.nr.low <= self.nr.high < 2 * bit
        )

    @property
    def nr_text(self) -> str:
        """Show the number or numbers, those of x32 without their bit."""
        return str(self.nr.minus(abi.X32_SYSCALL_BIT) if self.is_x32 else self.nr)

    def __str__(self) -> str:
        condition = f" if {self.condition}" if self.condition else ""
        verdicts = f"{action_name(self.before)} -> {action_name(self.after)}"
        return f"{self.arch_name} {self.nr_text}{condition}: {verdicts}"


@dataclass(frozen=True, slots=True)
class Difference:
    """All that distinguishes two filters; where not ``complete``, ``reason`` says why."""

    changes: tuple[VerdictChange, ...]
    complete: bool
    reason: str = ""

    @property
    def equal(self) -> bool:
        """Tell whether it is proven that no verdict differs."""
        return self.complete and not self.changes


def difference(before: bytes, after: bytes, work: int = WORK) -> Difference:
    """List every class of (arch, nr, arguments) that two programs answer differently.

    BpfError: the kernel would not take one of them. ``work`` limits the steps spent; what cannot be
    listed within it, or in CLASSES classes, makes the result incomplete, never equal.
    """
    programs = decode(before), decode(after)
    for insns in programs:
        check(insns)
    diagram = Diagram(work)
    try:
        node = _pair(diagram, verdicts(diagram, programs[0]), verdicts(diagram, programs[1]))
    except TooLarge:
        return Difference((), complete=False, reason=_UNDECIDED)
    changes: list[VerdictChange] = []
    try:
        for change in _changes(diagram, node):
            if len(changes) == CLASSES:
                return Difference(tuple(changes), complete=False, reason=_TOO_MANY)
            changes.append(change)
    except TooLarge:
        return Difference(tuple(changes), complete=False, reason=_UNDECIDED)
    return Difference(tuple(changes), complete=True)


def _pair(diagram: Diagram, before: int, after: int) -> int:
    """Return the function whose leaves are (before, after) where they differ and None elsewhere."""
    memo: dict[tuple[int, int], int] = {}
    same = diagram.leaf(None)

    def pair(b: int, a: int) -> int:
        if b == a:
            return same
        result = memo.get((b, a))
        if result is None:
            diagram.spend()
            if diagram.is_leaf(b) and diagram.is_leaf(a):
                result = diagram.leaf((diagram.value[b], diagram.value[a]))
            else:
                top = min(diagram.variable[b], diagram.variable[a])
                b1, b0 = diagram.split(b, top)
                a1, a0 = diagram.split(a, top)
                result = diagram.node(top, pair(b1, a1), pair(b0, a0))
            memo[b, a] = result
        return result

    return pair(before, after)


def _changes(diagram: Diagram, root: int) -> Iterator[VerdictChange]:
    for arch_node, arches in regions(diagram, root, 0):
        for nr_node, numbers in regions(diagram, arch_node, 1):
            for condition, leaf in _conditions(diagram, nr_node):
                before, after = leaf
                for arch in arches:
                    for nr in numbers:
                        yield VerdictChange(arch, nr, condition, before, after)


def _conditions(diagram: Diagram, node: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Return the conditions on the arguments under which the verdict differs, and both verdicts."""
    value = diagram.value[node]
    if diagram.is_leaf(node):
        if isinstance(value, tuple):
            yield "", value
        return
    rank = diagram.variable[node] // 32
    for below, where in regions(diagram, node, rank):
        text = _either(_ARGUMENTS[rank], where)
        for rest, verdicts_ in _conditions(diagram, below):
            yield " and ".join(filter(None, (text, rest))), verdicts_


def _either(name: str, where: list[Region]) -> str:
    texts = [region.condition(name) for region in where]
    if len(where) == 2 and all(region.is_range for region in where):
        below, above = where
        if (below.low, below.high + 2, above.high) == (0, above.low, 0xFFFFFFFF):
            return f"{name} != {below.high + 1:#x}"
    return texts[0] if len(texts) == 1 else f"({' or '.join(texts)})"
