"""The decision on a filter as the kernel is about to see it."""

import ctypes
import errno
import os

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shim import abi
from shim.bpf import emulator
from shim.bpf import program as bpf
from shim.bpf.equivalence import difference
from shim.errors import LeftAlone
from shim.host import libc
from shim.start.digest import sha256
from shim.start.inject.augment import augment

LD_ARCH = (0x20, 0, 0, 4)
LD_NR = (0x20, 0, 0, 0)
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
KILL, TRAP, TRACE, NOTIFY, LOG = 0x80000000, 0x00030000, 0x7FF00000, 0x7FC00000, 0x7FFC0000
CALLS = {"uretprobe": 335}
GETPGRP = 111


def filter_of(verdicts: dict[int, int], default: int) -> bytes:
    """Make a filter that answers each x86-64 number as told, all else with ``default``."""
    insns = [LD_ARCH, (0x15, 1, 0, abi.AUDIT_ARCH_X86_64), (6, 0, 0, KILL), LD_NR]
    for nr, verdict in verdicts.items():
        insns += [(0x15, 0, 1, nr), (6, 0, 0, verdict)]
    return bpf.encode([*insns, (6, 0, 0, default)])


@given(
    st.dictionaries(st.integers(0, 500), st.sampled_from([ALLOW, LOG, EPERM]), max_size=40),
    st.sampled_from([EPERM, ENOSYS, KILL, TRAP, TRACE]),
)
def test_a_default_denial_becomes_exactly_one_permission(
    verdicts: dict[int, int], default: int
) -> None:
    """Whatever else the filter says, the proof finds one changed call and no other."""
    assume(not {335, *abi.TEST_SYSCALLS} & verdicts.keys())
    old = filter_of(verdicts, default)
    new, facts = augment(old, CALLS)
    assert [str(change) for change in difference(old, new).changes] == [
        f"x86_64 335: {bpf.action_name(default)} -> ALLOW"
    ]
    assert facts["before"] == bpf.action_name(default)
    assert (facts["length_before"], facts["length_after"]) == (len(old) // 8, len(new) // 8)
    assert (facts["sha256_before"], facts["sha256_after"]) == (sha256(old), sha256(new))


def test_two_calls_are_both_let_through() -> None:
    """More than one call of the catalogue may be needed at once."""
    new, facts = augment(filter_of({}, EPERM), {"uretprobe": 335, "uprobe": 336})
    insns = bpf.decode(new)
    seen = [emulator.verdict(insns, nr, abi.AUDIT_ARCH_X86_64) for nr in (334, 335, 336, 337)]
    assert seen == [EPERM, ALLOW, ALLOW, EPERM]
    assert facts["syscall"] == "uretprobe,uprobe"


@pytest.mark.parametrize(
    ("verdict", "default", "reason"),
    [
        (ALLOW, EPERM, "lets it through already"),
        (LOG, EPERM, "lets it through already"),
        (EPERM, ENOSYS, "denies it by name (ERRNO(1); unknown calls get ERRNO(38))"),
        (KILL, EPERM, "denies it by name (KILL_PROCESS; unknown calls get ERRNO(1))"),
        (TRACE, EPERM, "leaves it to a supervisor"),
        (TRACE | 7, TRACE, "leaves it to a supervisor"),
        (NOTIFY, NOTIFY, "leaves it to a supervisor"),
    ],
)
def test_a_filter_that_means_it_is_left_alone(verdict: int, default: int, reason: str) -> None:
    """What the author said of the call by name stands."""
    with pytest.raises(LeftAlone) as left:
        augment(filter_of({335: verdict}, default), CALLS)
    assert reason in str(left.value)


KILLED_BY_ARGUMENT = [
    LD_NR, (0x15, 0, 3, 335), (0x20, 0, 0, 16), (0x15, 0, 1, 7), (6, 0, 0, KILL), (6, 0, 0, EPERM)
]  # fmt: skip
UNKNOWN_BY_ARGUMENT = [
    LD_NR, (0x15, 2, 0, 335), (0x20, 0, 0, 60), (0x15, 0, 1, 7), (6, 0, 0, KILL), (6, 0, 0, EPERM)
]  # fmt: skip


@pytest.mark.parametrize(
    ("insns", "reason"),
    [
        (KILLED_BY_ARGUMENT, "decides on it by its arguments (ERRNO(1) or KILL_PROCESS)"),
        (UNKNOWN_BY_ARGUMENT, "unknown calls get ERRNO(1) or KILL_PROCESS"),
        ([LD_NR, (0x35, 0, 1, 400), (6, 0, 0, ENOSYS), (6, 0, 0, EPERM)], "get ERRNO(38)"),
    ],
)
def test_a_default_that_is_none_is_left_alone(insns: bpf.Insns, reason: str) -> None:
    """One argument, or another unknown number, gets another verdict: that was meant by somebody."""
    with pytest.raises(LeftAlone) as left:
        augment(bpf.encode(insns), CALLS)
    assert reason in str(left.value)


def test_the_kernel_answers_enosys_where_nobody_traces() -> None:
    """So a default of TRACE is a denial: what a filter leaves to a tracer fails without one."""
    program = bpf.encode([LD_NR, (0x15, 0, 1, GETPGRP), (6, 0, 0, TRACE | 7), (6, 0, 0, ALLOW)])
    child = os.fork()
    if child == 0:
        try:
            libc.prctl(abi.PR_SET_NO_NEW_PRIVS, 1)
            libc.set_filter(program, 0)
            call = ctypes.CDLL(None, use_errno=True).syscall
            os._exit(ctypes.get_errno() if call(GETPGRP) == -1 else 0)
        finally:
            os._exit(255)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.ENOSYS


@pytest.mark.parametrize("program", [b"", b"\0" * 7, b"\0" * 8, b"\xff" * 80])
def test_what_is_no_filter_is_refused(program: bytes) -> None:
    """Bytes that the kernel would not take are not changed into others."""
    with pytest.raises(bpf.BpfError):
        augment(program, CALLS)
