"""The emulator compared with the kernel: random programs, really loaded and asked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim import abi
from shim.bpf import program as bpf
from shim.bpf.emulator import arithmetic, verdict
from shim.bpf.program import LD_ABS, LD_IMM, LD_LEN, LDX_IMM, LDX_LEN, NEG, RET_A, RET_K, TXA, Insns
from shim.host import libc
from support.filters import (
    ALLOW,
    CONSTANTS,
    SIGSYS,
    X86_64,
    arguments,
    ask,
    bodies,
    denying,
    guarded,
    in_child,
    load,
    observed,
)

ALU = abi.BPF_ALU
X = abi.BPF_X


def _predicted(insns: Insns, nr: int, args: list[int]) -> int:
    value = verdict(insns, nr, X86_64, args)
    if value == 0:
        return SIGSYS
    assert value & abi.SECCOMP_RET_ACTION_FULL == abi.SECCOMP_RET_ERRNO
    return value & abi.SECCOMP_RET_DATA


@settings(max_examples=120, deadline=None)
@given(bodies(), st.integers(0, 31), st.sampled_from(abi.TEST_SYSCALLS), arguments)
def test_random_programs_answer_as_in_the_kernel(
    body: Insns, shift: int, nr: int, args: list[int]
) -> None:
    """Eleven bits of what a random program computes are those that the kernel saw."""
    insns = guarded(observed(body, shift))
    bpf.check(insns)
    assert ask(bpf.encode(insns), nr, args) == _predicted(insns, nr, args)


@pytest.mark.parametrize("op", [abi.BPF_LSH, abi.BPF_RSH], ids=["lsh", "rsh"])
@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 63, 64, 0xFFFFFFFF])
@pytest.mark.parametrize("shift", [0, 11, 22])
def test_shifts_by_x_count_modulo_32(op: int, count: int, shift: int) -> None:
    """A shift by 32 and more gives what this machine's kernel gives."""
    insns = guarded(
        observed(
            [(LDX_IMM, 0, 0, count), (LD_IMM, 0, 0, 0x8765_4321), (ALU | op | X, 0, 0, 0)], shift
        )
    )
    assert ask(bpf.encode(insns), 400) == _predicted(insns, 400, [0] * 6)


def test_division_by_x_of_zero_kills() -> None:
    """A program that divides by X = 0 ends with 0, which kills the thread."""
    insns = guarded([(LD_IMM, 0, 0, 7), (ALU | abi.BPF_DIV | X, 0, 0, 0), ALLOW])
    assert verdict(insns, 400, X86_64) == abi.SECCOMP_RET_KILL_THREAD
    assert ask(bpf.encode(insns), 400) == SIGSYS


@pytest.mark.parametrize("code", [LD_LEN, LDX_LEN], ids=["A", "X"])
def test_length_of_the_data_is_64(code: int) -> None:
    """BPF_LEN gives the size of struct seccomp_data."""
    move: Insns = [(TXA, 0, 0, 0)] if code == LDX_LEN else []
    insns = guarded(observed([(code, 0, 0, 0), *move], 0))
    assert _predicted(insns, 400, [0] * 6) == 64
    assert ask(bpf.encode(insns), 400) == 64


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("half", [0, 1], ids=["low", "high"])
def test_all_arguments_are_where_the_kernel_has_them(place: int, half: int) -> None:
    """Each half of each argument is read from its own word."""
    args = [(0x100 + 2 * i + 1) << 32 | 0x100 + 2 * i for i in range(6)]
    insns = guarded(observed([(LD_ABS, 0, 0, 16 + 8 * place + 4 * half)], 0))
    assert _predicted(insns, 400, args) == 0x100 + 2 * place + half
    assert ask(bpf.encode(insns), 400, args) == 0x100 + 2 * place + half


@pytest.mark.parametrize("offset", [8, 12], ids=["low", "high"])
def test_instruction_pointer_is_read_in_halves(offset: int) -> None:
    """The two words of the instruction pointer come from ``ip``."""
    insns: Insns = [(LD_ABS, 0, 0, offset), (RET_A, 0, 0, 0)]
    expected = 0x55667788 if offset == 8 else 0x11223344
    assert verdict(insns, 0, X86_64, ip=0x1122334455667788) == expected


def test_registers_start_at_zero() -> None:
    """A and X are 0 before the first instruction."""
    a: Insns = [(RET_A, 0, 0, 0)]
    x: Insns = [(TXA, 0, 0, 0), (RET_A, 0, 0, 0)]
    assert verdict(a, 1, X86_64) == verdict(x, 1, X86_64) == 0


def test_an_unknown_code_has_no_verdict() -> None:
    """What seccomp does not admit is not run."""
    with pytest.raises(bpf.BpfError):
        verdict([(0x28, 0, 0, 0), (RET_K, 0, 0, 0)], 0, X86_64)


@given(st.sampled_from(CONSTANTS))
def test_negation_is_subtraction_from_zero(value: int) -> None:
    """NEG of every edge of the 32 bits wraps round."""
    insns: Insns = [(LD_IMM, 0, 0, value), (NEG, 0, 0, 0), (RET_A, 0, 0, 0)]
    assert verdict(insns, 0, X86_64) == arithmetic(abi.BPF_SUB, 0, value)


def test_test_syscalls_show_what_a_filter_does() -> None:
    """Of the unassigned numbers the denied give the filter's errno, the allowed ENOSYS."""
    program = denying(1, 231, 338, 400)

    def work() -> list[int]:
        load(program)
        answers = []
        for number in (337, 338, 339, 400, 423):
            try:
                libc.syscall(number)
            except OSError as error:
                answers.append(error.errno or 0)
        return answers

    assert in_child(work) == [1, 38, 1, 38, 1]
    insns = bpf.decode(program)
    names = [bpf.action_name(verdict(insns, n, X86_64)) for n in (337, 338, 339, 400, 423)]
    assert names == ["ERRNO(1)", "ALLOW", "ERRNO(1)", "ALLOW", "ERRNO(1)"]
