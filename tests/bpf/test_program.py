"""The instructions and the kernel's validity rules, compared with the kernel itself."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim import abi
from shim.bpf import program as bpf
from shim.bpf.program import LD_ABS, LD_IMM, LD_MEM, RET_A, RET_K, BpfError, Insns
from support.filters import ALLOW, JEQ, bodies, in_child, load

raw_insns = st.lists(
    st.tuples(
        st.integers(0, 0xFFFF),
        st.integers(0, 255),
        st.integers(0, 255),
        st.integers(0, 0xFFFFFFFF),
    ),
    max_size=40,
)


def _refused(insns: Insns) -> bool:
    try:
        bpf.check(insns)
    except BpfError:
        return True
    return False


def _kernel_refuses(programs: list[Insns]) -> list[bool]:
    """Tell for each program whether the kernel refuses it; it is loaded behind a plain ALLOW."""

    def work() -> list[bool]:
        answers = []
        for insns in programs:
            program = [(LD_IMM, 0, 0, 0), (JEQ, 0, 1, 0), ALLOW, *insns]
            try:
                load(bpf.encode(program))
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                answers.append(True)
            else:
                answers.append(False)
        return answers

    result = in_child(work)
    assert isinstance(result, list), f"the child ended with {result}"
    return result


@given(raw_insns)
def test_encoding_reverses_decoding(insns: Insns) -> None:
    """Every list of instructions survives the way to bytes and back."""
    assert bpf.decode(bpf.encode(insns)) == insns


@pytest.mark.parametrize("length", [1, 7, 9, 15])
def test_partial_instructions_are_refused(length: int) -> None:
    """A program whose length is no multiple of eight is not decoded."""
    with pytest.raises(BpfError, match=f"{length} bytes?: not whole"):
        bpf.decode(bytes(length))


def test_out_of_range_fields_are_refused() -> None:
    """A constant of more than 32 bits is not encoded."""
    with pytest.raises(BpfError):
        bpf.encode([(RET_K, 0, 0, 1 << 32)])


def test_all_codes_are_judged_as_the_kernel_does() -> None:
    """Of all 65536 codes exactly those pass that the kernel admits."""
    tail: Insns = [ALLOW] * 6
    programs = [[(abi.BPF_ST, 0, 0, 4), (code, 0, 0, 4), *tail] for code in range(1 << 16)]
    refused = _kernel_refuses(programs)
    assert [_refused(program) for program in programs] == refused
    assert refused.count(False) == 41


@pytest.mark.parametrize(
    "insns",
    [
        pytest.param([(LD_ABS, 0, 0, 64), ALLOW], id="load behind seccomp_data"),
        pytest.param([(LD_ABS, 0, 0, 60), ALLOW], id="load of its last word"),
        pytest.param([(LD_ABS, 0, 0, 2), ALLOW], id="unaligned load"),
        pytest.param([(LD_ABS, 0, 0, 0)], id="no return"),
        pytest.param([ALLOW, (LD_ABS, 0, 0, 0)], id="return not last"),
        pytest.param([(JEQ, 1, 0, 0), ALLOW], id="jump behind the end"),
        pytest.param([(JEQ, 0, 1, 0), ALLOW], id="jump behind the end if not"),
        pytest.param([(JEQ, 1, 1, 0), ALLOW, ALLOW], id="jump to the last"),
        pytest.param([(bpf.JA, 0, 0, 0xFFFFFFFF), ALLOW], id="jump backwards"),
        pytest.param([(bpf.JA, 0, 0, 1), ALLOW, ALLOW], id="far jump to the last"),
        pytest.param([(abi.BPF_ALU | abi.BPF_DIV, 0, 0, 0), ALLOW], id="division by zero"),
        pytest.param([(abi.BPF_ALU | abi.BPF_LSH, 0, 0, 32), ALLOW], id="shift by 32"),
        pytest.param([(abi.BPF_ALU | abi.BPF_RSH, 0, 0, 31), ALLOW], id="shift by 31"),
        pytest.param([(abi.BPF_ST, 0, 0, 16), ALLOW], id="17th memory word"),
        pytest.param([(abi.BPF_ST, 0, 0, 15), (LD_MEM, 0, 0, 15), ALLOW], id="16th memory word"),
        pytest.param([(LD_MEM, 0, 0, 0), ALLOW], id="load of what was never stored"),
        pytest.param(
            [(JEQ, 0, 1, 5), (abi.BPF_ST, 0, 0, 1), (LD_MEM, 0, 0, 1), ALLOW],
            id="load of what one path stored",
        ),
        pytest.param(
            [
                (JEQ, 0, 2, 5),
                (abi.BPF_ST, 0, 0, 1),
                (bpf.JA, 0, 0, 1),
                (abi.BPF_STX, 0, 0, 1),
                (LD_MEM, 0, 0, 1),
                ALLOW,
            ],
            id="load of what both paths stored",
        ),
        pytest.param([(RET_A, 0, 0, 0)], id="return of A"),
        pytest.param([(abi.BPF_RET | abi.BPF_X, 0, 0, 0)], id="return of X"),
    ],
)
def test_rules_are_those_of_the_kernel(insns: Insns) -> None:
    """On both sides of every rule, the kernel and check() say the same."""
    assert [_refused(insns)] == _kernel_refuses([insns])


@settings(max_examples=60, deadline=None)
@given(bodies(), st.data())
def test_damaged_programs_are_judged_as_the_kernel_does(body: Insns, data: st.DataObject) -> None:
    """A valid program with some fields changed passes exactly if the kernel takes it."""
    programs = []
    for _ in range(20):
        insns = [*body, (RET_A, 0, 0, 0)]
        place = data.draw(st.integers(0, len(insns) - 1))
        fields = list(insns[place])
        fields[data.draw(st.integers(1, 3))] = data.draw(st.integers(0, 70))
        insns[place] = (fields[0], fields[1], fields[2], fields[3])
        programs.append(insns)
    assert [_refused(insns) for insns in programs] == _kernel_refuses(programs)


@pytest.mark.parametrize(("length", "refused"), [(0, True), (4096, False), (4097, True)])
def test_length_is_limited(length: int, refused: bool) -> None:
    """A filter has 1 to 4096 instructions."""
    assert _refused([ALLOW] * length) is refused


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0x7FFF0000, "ALLOW"),
        (0x7FFF1234, "ALLOW"),
        (0x00050001, "ERRNO(1)"),
        (0x0005FFFF, "ERRNO(4095)"),
        (0x00000000, "KILL_THREAD"),
        (0x80000000, "KILL_PROCESS"),
        (0x00030007, "TRAP(7)"),
        (0x7FF00001, "TRACE(1)"),
        (0x7FC00000, "USER_NOTIF"),
        (0x7FFC0000, "LOG"),
        (0x12340000, "KILL_PROCESS"),
    ],
)
def test_verdicts_are_named(value: int, name: str) -> None:
    """A return value is named by what the kernel does for it, an unknown one as a kill."""
    assert bpf.action_name(value) == name


def test_as_many_instructions_as_seccomp_has_are_admitted() -> None:
    """Of the 256 codes those are taken that seccomp_check_filter() lists, and no other."""
    assert len([code for code in range(256) if not _refused(_around(code))]) == 41


def _around(code: int) -> Insns:
    return [(abi.BPF_ST, 0, 0, 4), (code, 0, 0, 4), *[ALLOW] * 6]
