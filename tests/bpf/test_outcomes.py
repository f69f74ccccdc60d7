"""All that a filter can answer one call: against each combination of arguments, one by one."""

import functools
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim import abi
from shim.bpf import program
from shim.bpf.emulator import verdict
from shim.bpf.outcomes import (
    names,
    outcomes,
    stricter,
    strictest,
    surely_lets_through,
    together,
)
from shim.bpf.program import LD_ABS, LD_IMM, LD_MEM, RET_A, RET_K, TAX, Insns, canonical, encode
from shim.errors import LeftAlone
from shim.start.inject.augment import augment
from support.filters import ALLOW, AND, JEQ, JGT, X86_64, bodies

NR, DEFAULTS = 400, (337, 423)
EPERM, EIO, KILL, LOG = 0x0005_0001, 0x0005_0005, 0x8000_0000, 0x7FFC_0000
ARG0, ARG1, IP = 16, 24, 8


@st.composite
def small(draw: st.DrawFn) -> Insns:
    """Draw a program that looks at one bit of each half of two arguments: few enough to try."""
    first: Insns = []
    for cell, word in enumerate((4, 5, 6, 7)):
        first += [(LD_ABS, 0, 0, 4 * word), (AND, 0, 0, 1), (abi.BPF_ST, 0, 0, cell)]
    known = draw(bodies())[4:]
    asked = draw(bodies())[4:]
    ends = [_end(draw), _end(draw)]
    branches = [
        [
            (LD_MEM, 0, 0, k // 4 - 4) if code == LD_ABS and k else (code, jt, jf, k)
            for code, jt, jf, k in body
        ]
        + end
        for body, end in zip((known, asked), ends, strict=True)
    ]
    return [*first, (LD_ABS, 0, 0, 0), (JEQ, 0, len(branches[0]), NR), *branches[0], *branches[1]]


def _end(draw: st.DrawFn) -> Insns:
    one, other = (draw(st.sampled_from((EPERM, EPERM, EIO, KILL, LOG))) for _ in range(2))
    return [
        (AND, 0, 0, 7),
        (JGT, 0, 1, draw(st.integers(0, 7))),
        (RET_K, 0, 0, one),
        (RET_K, 0, 0, other),
    ]


def tried(insns: Insns, nr: int) -> set[int]:
    """Return the verdicts for every combination that such a program can tell apart."""
    return {
        canonical(verdict(insns, nr, X86_64, (a | b << 32, c | d << 32, 0, 0, 0, 0)))
        for a, b, c, d in itertools.product((0, 1), repeat=4)
    }


@settings(deadline=None)
@given(small())
def test_exactly_the_verdicts_of_all_arguments(insns: Insns) -> None:
    """Not one is missing and not one is too many."""
    program.check(insns)
    assert outcomes(insns, NR) == tried(insns, NR)


@settings(deadline=None, max_examples=200)
@given(small())
def test_a_call_is_added_exactly_where_all_arguments_get_the_default(insns: Insns) -> None:
    """The one verdict of the call is that of every unknown call, and it is a denial."""
    here = tried(insns, NR)
    denied = here in ({EPERM}, {EIO}, {KILL}, {abi.SECCOMP_RET_KILL_THREAD})
    wanted = denied and all(tried(insns, nr) == here for nr in DEFAULTS)
    try:
        new, _ = augment(encode(insns), {"call": NR})
    except LeftAlone:
        assert not wanted
    else:
        assert wanted
        assert tried(program.decode(new), NR) == {abi.SECCOMP_RET_ALLOW}


def looking(offset: int, at: int, then: int, otherwise: int) -> Insns:
    """Return a program that answers one value of a word otherwise than all the others."""
    return [(LD_ABS, 0, 0, offset), (JEQ, 0, 1, at), (RET_K, 0, 0, then), (RET_K, 0, 0, otherwise)]


@pytest.mark.parametrize("offset", [ARG0, ARG0 + 4, ARG1, 56, 60, IP, IP + 4])
def test_one_value_of_any_argument_counts(offset: int) -> None:
    """A single value of one half of an argument, or of the instruction pointer, is found."""
    assert outcomes(looking(offset, 7, KILL, EPERM), NR) == {KILL, EPERM}


def test_what_no_arguments_lead_to_is_not_told() -> None:
    """An argument that equals 7 does not equal 8 further on."""
    insns: Insns = [(LD_ABS, 0, 0, ARG0), (JEQ, 0, 2, 7), (JEQ, 0, 1, 8), (RET_K, 0, 0, KILL)]
    assert outcomes([*insns, (RET_K, 0, 0, EPERM)], NR) == {EPERM}


def test_a_division_by_an_argument_may_end_it() -> None:
    """An argument of zero ends the program with a killed thread."""
    division: Insns = [
        (LD_ABS, 0, 0, ARG0),
        (AND, 0, 0, 3),
        (TAX, 0, 0, 0),
        (abi.BPF_ALU | abi.BPF_DIV | abi.BPF_X, 0, 0, 0),
        (RET_K, 0, 0, EPERM),
    ]
    assert outcomes(division, NR) == {abi.SECCOMP_RET_KILL_THREAD, EPERM}


def forking(steps: int) -> Iterator[program.Insn]:
    """Yield a program whose A is another value on each of its paths."""
    for step in range(steps):
        yield from (
            (LD_MEM, 0, 0, 0),
            (abi.BPF_ALU | abi.BPF_ADD, 0, 0, 1 << step % 32),
            (abi.BPF_ST, 0, 0, 1),
            (LD_ABS, 0, 0, ARG0 + 4 * (step % 12)),
            (abi.BPF_JMP | abi.BPF_JSET, 0, 2, 1 << step % 32),
            (LD_MEM, 0, 0, 1),
            (abi.BPF_ST, 0, 0, 0),
        )


def test_what_would_take_too_long_is_not_decided() -> None:
    """A product of arguments, and a number of paths that doubles with each step, are given up."""
    product: Insns = [
        (LD_ABS, 0, 0, ARG0),
        (TAX, 0, 0, 0),
        (LD_ABS, 0, 0, ARG1),
        (abi.BPF_ALU | abi.BPF_MUL | abi.BPF_X, 0, 0, 0),
        (RET_A, 0, 0, 0),
    ]
    paths: Insns = [(abi.BPF_ST, 0, 0, 0), *forking(24), (LD_MEM, 0, 0, 0), (RET_A, 0, 0, 0)]
    for insns in (product, paths):
        program.check(insns)
        assert outcomes(insns, NR) == frozenset()
        with pytest.raises(LeftAlone, match="too much to be decided"):
            augment(encode(insns), {"call": NR})


def test_several_filters_let_through_what_each_does() -> None:
    """The strictest verdict counts for each of the arguments, of equal ones the newest."""
    one, other, open_ = looking(ARG0, 7, KILL, EPERM), looking(ARG1, 7, EIO, EIO), [ALLOW]
    assert together([one, open_], NR) == {KILL, EPERM}
    assert together([open_, other, one], NR) == {KILL, EIO}
    assert together([open_, open_], NR) == together([], NR) == {abi.SECCOMP_RET_ALLOW}
    assert names(together([one], NR)) == "ERRNO(1) or KILL_PROCESS"
    assert names([]) == "undecided"


def intricate(steps: int) -> Insns:
    """Return a program of many states, each of which takes long for little that is new."""
    return [(abi.BPF_ST, 0, 0, 0), *forking(steps), (LD_MEM, 0, 0, 0), (RET_A, 0, 0, 0)]


def constant(op: int) -> Insns:
    """Return a program that calculates much with constants, and then asks for an argument."""
    start: Insns = [(LD_ABS, 0, 0, ARG0), (abi.BPF_JMP | abi.BPF_JSET, 0, 1, 1), (LD_ABS, 0, 0, 4)]
    much: Insns = [(LD_IMM, 0, 0, 0xFFFFFFFF), (TAX, 0, 0, 0)]
    much += [(abi.BPF_ALU | op | abi.BPF_X, 0, 0, 0)] * 3000
    return [*start, *much, (abi.BPF_ALU | abi.BPF_OR, 0, 0, EPERM), *looking(ARG0, 7, KILL, EPERM)]


@pytest.mark.parametrize(
    "insns",
    [intricate(500), constant(abi.BPF_MUL), constant(abi.BPF_DIV), constant(abi.BPF_ADD)],
    ids=["states", "mul", "div", "add"],
)
def test_the_work_for_one_call_is_limited(insns: Insns, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that costs time is counted: with half of the steps half of the functions are called."""
    from shim.bpf import bdd

    called = 0
    plain = bdd.Diagram.ite

    def ite(self: bdd.Diagram, condition: int, yes: int, no: int) -> int:
        nonlocal called
        called += 1
        return plain(self, condition, yes, no)

    monkeypatch.setattr(bdd.Diagram, "ite", ite)
    program.check(insns)
    assert outcomes(insns, NR) == frozenset()
    assert called < 1_000_000


def test_the_first_filter_that_is_not_decided_is_the_last_one_asked() -> None:
    """Hundreds of intricate filters of one thread cost as much as one."""
    asked = []

    def programs() -> Iterator[Insns]:
        for steps in (24, 25, 26):
            asked.append(steps)
            yield intricate(steps)

    assert together(programs(), NR) == frozenset()
    assert asked == [24]


verdict_sets = st.frozensets(
    st.sampled_from((KILL, EPERM, EIO, LOG, abi.SECCOMP_RET_ALLOW, abi.SECCOMP_RET_TRAP)),
    min_size=1,
)


@given(st.lists(verdict_sets, max_size=4))
def test_the_strictest_of_all_combinations(each: list[frozenset[int]]) -> None:
    """As if each verdict of the one had been compared with each of the others."""
    expected = {
        functools.reduce(stricter, ones, abi.SECCOMP_RET_ALLOW) for ones in itertools.product(*each)
    }
    assert strictest(each) == expected


def test_what_is_told_of_a_held_process_takes_no_proof() -> None:
    """Who holds it runs each filter once; what is not found that way is not let through."""
    assert surely_lets_through([encode([ALLOW]), encode([(RET_K, 0, 0, LOG)])], NR)
    assert not surely_lets_through([encode([ALLOW]), encode([(RET_K, 0, 0, EPERM)])], NR)
    assert not surely_lets_through([encode(intricate(500))], NR)
    same = encode(looking(ARG0, 7, LOG, abi.SECCOMP_RET_ALLOW))
    assert surely_lets_through([same], NR)
