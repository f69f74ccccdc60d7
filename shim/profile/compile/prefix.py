"""Rules in front of a filter, for 32-bit architectures' numbers that libseccomp cannot be told."""

from collections.abc import Iterable, Sequence

from shim import abi
from shim.bpf.program import LD_ABS, RET_K, BpfError, Insns
from shim.profile.compile.rules import Condition

Rule = tuple[int, int, int, tuple[Condition, ...]]  # arch, nr, action, conditions

_WORD = 0xFFFFFFFF
_JUMP = abi.BPF_JMP | abi.BPF_K
_JEQ, _JGE, _JGT = (_JUMP | op for op in (abi.BPF_JEQ, abi.BPF_JGE, abi.BPF_JGT))
_AND = abi.BPF_ALU | abi.BPF_AND | abi.BPF_K

# The jump, and whether the condition holds where it is taken.
_COMPARE = {
    "SCMP_CMP_EQ": (_JEQ, True),
    "SCMP_CMP_NE": (_JEQ, False),
    "SCMP_CMP_GE": (_JGE, True),
    "SCMP_CMP_LT": (_JGE, False),
    "SCMP_CMP_GT": (_JGT, True),
    "SCMP_CMP_LE": (_JGT, False),
    "SCMP_CMP_MASKED_EQ": (_JEQ, True),
}


def prefix(rules: Iterable[Rule]) -> Insns:
    """Return instructions that answer ``rules`` and leave all other calls to the program behind.

    As libseccomp does: the first unconditional rule of a call outdoes its conditional ones, and
    32-bit architectures have only the low half of an argument looked at.
    """
    calls: dict[tuple[int, int], list[tuple[int, tuple[Condition, ...]]]] = {}
    for arch, nr, action, conditions in rules:
        calls.setdefault((arch, nr), []).append((action, conditions))
    insns: Insns = []
    for (arch, nr), answers in calls.items():
        always = [answer for answer in answers if not answer[1]]
        for action, conditions in always[:1] or answers:
            insns += _block(arch, nr, action, conditions)
    return insns


def _block(arch: int, nr: int, action: int, conditions: Sequence[Condition]) -> Insns:
    """Return one rule's instructions; wherever a comparison fails it jumps behind them."""
    steps: list[tuple[int, int, bool]] = []
    tests: list[tuple[int, int, bool, int, int | None]] = [
        (abi.SECCOMP_DATA_ARCH, _JEQ, True, arch, None),
        (0, _JEQ, True, nr, None),
    ]
    for index, operator, datum, other in conditions:
        jump, taken = _COMPARE[operator]
        masked = operator == "SCMP_CMP_MASKED_EQ"
        mask = datum & _WORD if masked else None
        value = (other & datum if masked else datum) & _WORD
        tests.append((16 + 8 * index, jump, taken, value, mask))
    for offset, jump, taken, value, mask in tests:
        steps.append((LD_ABS, offset, False))
        if mask is not None:
            steps.append((_AND, mask, False))
        steps.append((jump, value, not taken))
    steps.append((RET_K, action, False))
    insns: Insns = []
    for place, (code, k, inverted) in enumerate(steps):
        behind = len(steps) - place - 1
        if code in (LD_ABS, _AND, RET_K):
            insns.append((code, 0, 0, k))
        elif behind > 255:
            raise BpfError("a rule has more conditions than a jump can pass over")
        else:
            insns.append((code, behind, 0, k) if inverted else (code, 0, behind, k))
    return insns
