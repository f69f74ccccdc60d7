"""The proof of difference, against brute force and against filters loosened in one place."""

import re
from functools import cache
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shim import abi
from shim.bpf import program
from shim.bpf.bdd import Diagram
from shim.bpf.emulator import verdict
from shim.bpf.equivalence import Difference, VerdictChange, difference
from shim.bpf.program import BRANCHES, LD_ABS, NEG, RET_A, RET_K, Insns
from shim.bpf.ranges import Region
from shim.bpf.symbolic import ORDER, verdicts
from shim.profile import compile as compiler
from shim.profile.docker import DEFAULT_CAPABILITIES, resolve
from support.filters import (
    ALLOW,
    AND,
    JEQ,
    JGE,
    WORDS,
    X86_64,
    bodies,
    denying,
    shipped,
    words,
)

WORK = 15_000

Data = tuple[int, int, list[int]]  # nr, arch, args

verdict_words = st.sampled_from((0x7FFF0000, 0x00050001, 0x00050002, 0, 0x80000000, 0x12340000))


def _value(insns: Insns, data: Data) -> int:
    nr, arch, args = data
    return program.canonical(verdict(insns, nr, arch, args))


def _contains(change: VerdictChange, data: Data) -> bool:
    """Tell whether ``change`` is about this call, its condition read as the text that it is."""
    nr, arch, args = data
    if not (_in(change.nr, nr) and _in(change.arch, arch)):
        return False
    text = re.sub(r"([\w.]+) in (\w+)\.\.(\w+)", r"\2 <= \1 <= \3", change.condition)
    for index, value in enumerate(args):
        text = text.replace(f"arg{index}.high", str(value >> 32))
        text = text.replace(f"arg{index}.low", str(value & 0xFFFFFFFF))
    text = text.replace("ip.high", "0").replace("ip.low", "0")
    return bool(eval(text or "True"))  # noqa: S307 - the text is our own output


def _in(region: Region, value: int) -> bool:
    if region.care:
        return value & region.care == region.low
    return region.low <= value <= region.high


def _agrees(found: Difference, before: Insns, after: Insns, data: Data) -> None:
    """Assert that exactly the right one of the changes, or none, is about this call."""
    verdicts_ = _value(before, data), _value(after, data)
    about = [(c.before, c.after) for c in found.changes if _contains(c, data)]
    assert about == ([] if verdicts_[0] == verdicts_[1] else [verdicts_])


def _edges(*programs: Insns) -> list[int]:
    """Return the constants of the programs' comparisons and their neighbours."""
    constants = {k for insns in programs for code, _, _, k in insns if code in BRANCHES}
    near = {value + step for value in constants for step in (-1, 0, 1)}
    return sorted({value & 0xFFFFFFFF for value in near | {0, 1, 0xFFFFFFFF}})


# Without multiplication of unknowns and the like, whose diagrams are too large to be decided.
_COSTLY = frozenset(abi.BPF_ALU | op | abi.BPF_X for op in (abi.BPF_MUL, abi.BPF_LSH, abi.BPF_RSH))


def _cheap(body: Insns) -> bool:
    return not any(insn[0] in _COSTLY or insn[0] == abi.BPF_ALU | abi.BPF_MUL for insn in body)


@settings(max_examples=40, deadline=None)
@given(bodies(max_size=14), st.lists(verdict_words, min_size=2, max_size=2), words, st.data())
def test_a_diagram_is_its_program(
    body: Insns, answers: list[int], limit: int, data: st.DataObject
) -> None:
    """At every input the diagram has the verdict that the emulator gives."""
    insns = [*body, (JGE, 0, 1, limit), *[(RET_K, 0, 0, value) for value in answers]]
    diagram = Diagram(WORK)
    try:
        root = verdicts(diagram, insns)
    except Exception as error:
        assume(type(error).__name__ != "TooLarge")
        raise
    values = st.sampled_from(_edges(insns)) | words
    for _ in range(6):
        drawn = [data.draw(values) if word in WORDS else 0 for word in range(16)]
        args = [drawn[4 + 2 * i] | drawn[5 + 2 * i] << 32 for i in range(6)]
        node = root
        while not diagram.is_leaf(node):
            word, bit = divmod(diagram.variable[node], 32)
            chosen = drawn[ORDER[word]] >> (31 - bit) & 1
            node = diagram.high[node] if chosen else diagram.low[node]
        assert diagram.value[node] == _value(insns, (drawn[0], drawn[1], args))


@settings(max_examples=40, deadline=None)
@given(bodies(max_size=10), bodies(max_size=10), st.lists(verdict_words, min_size=4, max_size=4))
def test_differences_are_those_of_brute_force(
    first: Insns, second: Insns, answers: list[int]
) -> None:
    """On all combinations of the programs' constants, what is listed is what differs."""
    assume(_cheap(first) and _cheap(second))
    before = [*first, (JGE, 0, 1, 338), (RET_K, 0, 0, answers[0]), (RET_K, 0, 0, answers[1])]
    after = [*second, (JEQ, 0, 1, 338), (RET_K, 0, 0, answers[2]), (RET_K, 0, 0, answers[3])]
    found = difference(program.encode(before), program.encode(after), WORK)
    assume(found.complete)
    edges = _edges(before, after)[:9]
    for nr, low, high in product(edges, edges, edges[:3]):
        _agrees(found, before, after, (nr, X86_64, [high << 32 | low, low, 0, 0, 0, 0]))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_flipped_bit_anywhere_is_caught(data: st.DataObject) -> None:
    """A real profile's program with one bit flipped differs exactly where it is listed to."""
    before = program.decode(_shipped())
    # Not the loads: with another word loaded, thousands of classes differ.
    places = [place for place, insn in enumerate(before) if insn[0] != LD_ABS]
    place = data.draw(st.sampled_from(places))
    code, jt, jf, k = before[place]
    field = data.draw(st.integers(1, 3) if code in BRANCHES else st.just(3))
    bit = 1 << data.draw(st.integers(0, 31 if field == 3 else 7))
    after = list(before)
    after[place] = (code, jt ^ bit * (field == 1), jf ^ bit * (field == 2), k ^ bit * (field == 3))
    try:
        program.check(after)
    except program.BpfError:
        assume(False)
    found = difference(program.encode(before), program.encode(after))
    assert found.complete
    if code == JEQ and field == 3:
        assert found.changes
    near = [value & 0xFFFFFFFF for edge in (k, k ^ bit) for value in (edge - 1, edge, edge + 1)]
    arches = (X86_64, abi.AUDIT_ARCH_I386, k & 0xFFFFFFFF, (k ^ bit) & 0xFFFFFFFF)
    for arch, nr in product(arches, [*near, 41, 56, 135, 335, 0x4000014F]):
        for arg in (0, *near):
            _agrees(found, before, after, (nr, arch, [arg, arg, 0, 0, 0, 0]))


_LOOSENED = [
    pytest.param(X86_64, 335, "x86_64 335", id="the call itself"),
    pytest.param(X86_64, 337, "x86_64 337", id="one more number"),
    pytest.param(X86_64, 0x4000014F, "x32 335", id="x32 twin"),
    pytest.param(abi.AUDIT_ARCH_I386, 500, "i386 500", id="i386"),
    pytest.param(abi.AUDIT_ARCH_AARCH64, 335, "aarch64 335", id="aarch64"),
    pytest.param(0x12345678, 0xFFFFFFFF, "arch 305419896 4294967295", id="unheard of"),
]


@pytest.mark.parametrize(("arch", "nr", "text"), _LOOSENED)
def test_one_more_permission_is_the_one_difference(arch: int, nr: int, text: str) -> None:
    """An allow for one number of one architecture is listed, and nothing else is."""
    before = _shipped(modern=False)
    after = program.allow(before, arch, nr)
    changes = difference(before, after).changes
    assert [f"{change.arch_name} {change.nr_text}" for change in changes] == [text]
    assert not changes[0].condition
    assert program.action_name(changes[0].after) == "ALLOW"


@pytest.mark.parametrize("bit", [0, 1, 31, 32, 63])
@pytest.mark.parametrize("index", [0, 5])
def test_one_argument_bit_is_caught(index: int, bit: int) -> None:
    """A permission that hangs on one bit of one argument is listed with that bit."""
    before = denying(1)
    body: Insns = [
        (LD_ABS, 0, 0, 0),
        (JEQ, 0, 4, 400),
        (LD_ABS, 0, 0, 16 + 8 * index + 4 * (bit // 32)),
        (AND, 0, 0, 1 << bit % 32),
        (JEQ, 1, 0, 0),
        ALLOW,
    ]
    found = difference(before, program.encode([*body, *program.decode(before)]))
    half = "high" if bit > 31 else "low"
    on_x86_64 = [change for change in found.changes if change.arch.single == X86_64]
    assert len(on_x86_64) == 1
    condition = on_x86_64[0].condition
    assert condition.startswith(f"arg{index}.{half} ")
    value = {f"arg{index}": 1 << bit}
    args = [value.get(f"arg{i}", 0) for i in range(6)]
    assert _contains(on_x86_64[0], (400, X86_64, args))
    assert not _contains(on_x86_64[0], (400, X86_64, [0] * 6))


@settings(max_examples=40, deadline=None)
@given(bodies(max_size=12))
def test_a_program_equals_itself_behind_detours(body: Insns) -> None:
    """Jumps and loads that change nothing make no difference."""
    assume(_cheap(body))
    insns: Insns = [*body, (RET_A, 0, 0, 0)]
    detour: Insns = [(LD_ABS, 0, 0, 0), (JGE, 0, 0, 7), (program.LD_IMM, 0, 0, 0), *insns]
    found = difference(program.encode(insns), program.encode(detour), WORK)
    assume(found.complete)
    assert found.equal


def test_what_is_too_much_to_follow_is_never_equal() -> None:
    """The product of two arguments is given up, and neither equality nor an end is claimed."""
    body: Insns = [
        (LD_ABS, 0, 0, 16),
        (program.TAX, 0, 0, 0),
        (LD_ABS, 0, 0, 24),
        (abi.BPF_ALU | abi.BPF_MUL | abi.BPF_X, 0, 0, 0),
        (JEQ, 0, 1, 12345),
        ALLOW,
        (RET_K, 0, 0, 0x50001),
    ]
    found = difference(program.encode(body), program.encode([ALLOW]), 20_000)
    assert (found.complete, found.equal) == (False, False)
    assert found.reason


def test_too_many_classes_are_incomplete() -> None:
    """A difference of thousands of scattered numbers is listed in part, and says so."""
    odd: Insns = [(LD_ABS, 0, 0, 0)]
    for number in range(0, 4000, 2):
        odd.append((JEQ, 0, 1, number))
        odd.append((RET_K, 0, 0, 0x50000 | number))
    found = difference(program.encode([*odd, ALLOW]), program.encode([ALLOW]))
    assert len(found.changes) == 2000
    assert found.complete
    more = [*odd, (JEQ, 0, 1, 4001), (RET_K, 0, 0, 0x50001), ALLOW]
    cut = difference(program.encode(more), program.encode([ALLOW]))
    assert (len(cut.changes), cut.complete, cut.equal) == (2000, False, False)


def test_verdicts_are_compared_as_the_kernel_treats_them() -> None:
    """Data that the kernel ignores, and unknown actions that kill alike, are no difference."""
    pairs = [(0x7FFF0000, 0x7FFF0001), (0x00050FFF, 0x0005FFFF), (0x80000000, 0x12340000)]
    for one, other in pairs:
        before, after = program.encode([(RET_K, 0, 0, one)]), program.encode([(RET_K, 0, 0, other)])
        assert difference(before, after).equal
    before, after = program.encode([(RET_K, 0, 0, 0)]), program.encode([(RET_K, 0, 0, 0x80000000)])
    assert len(difference(before, after).changes) == 1


def test_invalid_programs_are_refused() -> None:
    """What the kernel would not take is not compared."""
    with pytest.raises(program.BpfError):
        difference(program.encode([ALLOW]), program.encode([(LD_ABS, 0, 0, 0)]))


def test_unknown_arithmetic_is_followed_exactly() -> None:
    """Negation, division and shifts of arguments are decided, not given up."""
    before: Insns = [
        (LD_ABS, 0, 0, 16),
        (NEG, 0, 0, 0),
        (JEQ, 0, 1, 0xFFFFFFFB),
        ALLOW,
        (RET_K, 0, 0, 0x50001),
    ]
    after: Insns = [
        (LD_ABS, 0, 0, 16),
        (JEQ, 0, 1, 5),
        ALLOW,
        (RET_K, 0, 0, 0x50001),
    ]
    assert difference(program.encode(before), program.encode(after)).equal


@cache
def _shipped(*, modern: bool = True) -> bytes:
    """Return the program of the profile that comes with the project, for Docker's default caps."""
    flat = resolve(shipped(), capabilities=DEFAULT_CAPABILITIES, machine="x86_64", kernel=(6, 18))
    assert flat is not None
    if not modern:
        for rule in flat["syscalls"]:
            rule["names"] = [n for n in rule["names"] if n not in ("uretprobe", "uprobe")]
    return compiler.program(flat)
