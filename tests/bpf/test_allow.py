"""The permission in front of an old program."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim import abi
from shim.bpf import program as bpf
from shim.bpf.emulator import verdict
from shim.bpf.program import LDX_IMM, RET_A, BpfError, Insns, allow
from support.filters import ALLOW, X86_64, arguments, ask, bodies, denying, words

ARCHES = (X86_64, abi.AUDIT_ARCH_I386, abi.AUDIT_ARCH_AARCH64)


@settings(deadline=None)
@given(bodies(), st.sampled_from(ARCHES), words, st.sampled_from(ARCHES), words, arguments)
def test_every_other_call_meets_the_old_program(
    body: Insns, arch: int, nr: int, other_arch: int, other_nr: int, args: list[int]
) -> None:
    """The one call is allowed; every other one gets the verdict that it got before."""
    old: Insns = [*body, (RET_A, 0, 0, 0)]
    new = bpf.decode(allow(bpf.encode(old), arch, nr))
    bpf.check(new)
    assert verdict(new, nr, arch, args) == abi.SECCOMP_RET_ALLOW
    if (other_arch, other_nr) != (arch, nr):
        assert verdict(new, other_nr, other_arch, args) == verdict(old, other_nr, other_arch, args)


@pytest.mark.parametrize(("first", "length"), [((0x20, 0, 0, 0), 5), ((LDX_IMM, 0, 0, 1), 6)])
def test_a_is_cleared_where_the_old_program_may_read_it(
    first: tuple[int, int, int, int], length: int
) -> None:
    """Six instructions instead of five go before a program that does not load A first."""
    old = bpf.encode([first, (RET_A, 0, 0, 0)])
    new = allow(old, X86_64, 335)
    assert len(new) - len(old) == 8 * length
    assert new.endswith(old)
    assert verdict(bpf.decode(new), 334, X86_64) == verdict(bpf.decode(old), 334, X86_64)


@pytest.mark.parametrize(("length", "fits"), [(4091, True), (4092, False)])
def test_a_program_without_room_is_refused(length: int, fits: bool) -> None:
    """Five more instructions are refused exactly where they exceed 4096."""
    old = bpf.encode([(0x20, 0, 0, 0)] + [ALLOW] * (length - 1))
    if fits:
        bpf.check(bpf.decode(allow(old, X86_64, 335)))
    else:
        with pytest.raises(BpfError, match="no room"):
            allow(old, X86_64, 335)


def test_an_empty_program_is_refused() -> None:
    """Nothing is put in front of no filter."""
    with pytest.raises(BpfError):
        allow(b"", X86_64, 335)


def test_the_kernel_lets_the_test_syscall_through() -> None:
    """Loaded for real, the prefix turns EPERM into ENOSYS for its number and no other."""
    old = denying(1, 231)
    new = allow(old, X86_64, 400)
    answers = [ask(program, number) for program in (old, new) for number in (399, 400, 401)]
    eperm, enosys = errno.EPERM, errno.ENOSYS
    assert answers == [eperm, eperm, eperm, eperm, enosys, eperm]
