"""Classic BPF as seccomp admits it: bytes and instructions, the kernel's rules, a prefix.

An instruction is a plain tuple ``(code, jt, jf, k)``, ``struct sock_filter`` of linux/filter.h.
"""

from shim import abi
from shim.errors import ShimError, counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from struct import Struct, error
else:
    from _struct import Struct, error  # struct has it from there, and is one more module to load

Insn = tuple[int, int, int, int]
Insns = list[Insn]

_SOCK_FILTER = Struct("<HBBI")

LD_ABS = abi.BPF_LD | abi.BPF_W | abi.BPF_ABS
LD_IMM = abi.BPF_LD | abi.BPF_IMM
LD_MEM = abi.BPF_LD | abi.BPF_MEM
LD_LEN = abi.BPF_LD | abi.BPF_W | abi.BPF_LEN
LDX_IMM = abi.BPF_LDX | abi.BPF_IMM
LDX_MEM = abi.BPF_LDX | abi.BPF_MEM
LDX_LEN = abi.BPF_LDX | abi.BPF_W | abi.BPF_LEN
TAX = abi.BPF_MISC | abi.BPF_TAX
TXA = abi.BPF_MISC | abi.BPF_TXA
RET_K = abi.BPF_RET | abi.BPF_K
RET_A = abi.BPF_RET | abi.BPF_A
JA = abi.BPF_JMP | abi.BPF_JA
NEG = abi.BPF_ALU | abi.BPF_NEG
JEQ_K = abi.BPF_JMP | abi.BPF_JEQ | abi.BPF_K
JGE_K = abi.BPF_JMP | abi.BPF_JGE | abi.BPF_K
JGT_K = abi.BPF_JMP | abi.BPF_JGT | abi.BPF_K

_ALU = (
    abi.BPF_ADD, abi.BPF_SUB, abi.BPF_MUL, abi.BPF_DIV,
    abi.BPF_OR, abi.BPF_AND, abi.BPF_LSH, abi.BPF_RSH, abi.BPF_XOR,
)  # fmt: skip
_BRANCH = (abi.BPF_JEQ, abi.BPF_JGT, abi.BPF_JGE, abi.BPF_JSET)
_SOURCE = (abi.BPF_K, abi.BPF_X)

BRANCHES = frozenset(abi.BPF_JMP | op | source for op in _BRANCH for source in _SOURCE)

# Of ``allow``'s prefix: its instructions before a program that loads A first, as all of
# libseccomp's do, and all that it and that of ``refuse`` are made of.
PREFIX_LENGTH = 5
PREFIX_CODES = frozenset((LD_ABS, LD_IMM, JEQ_K, JGE_K, JGT_K, RET_K))

# kernel/seccomp.c seccomp_check_filter(): BPF_MOD, loads of bytes and halves, and every ancillary
# load are valid for sockets but not here.
_ADMITTED = (
    frozenset(abi.BPF_ALU | op | source for op in _ALU for source in _SOURCE)
    | BRANCHES
    | {LD_ABS, LD_IMM, LD_MEM, LD_LEN, LDX_IMM, LDX_MEM, LDX_LEN, abi.BPF_ST, abi.BPF_STX}
    | {TAX, TXA, RET_K, RET_A, JA, NEG}
)
_MEMORY = frozenset((LD_MEM, LDX_MEM, abi.BPF_ST, abi.BPF_STX))
_SHIFT_K = frozenset((abi.BPF_ALU | abi.BPF_LSH, abi.BPF_ALU | abi.BPF_RSH))
_DIV_K = abi.BPF_ALU | abi.BPF_DIV

_ACTIONS = {
    abi.SECCOMP_RET_KILL_PROCESS: "KILL_PROCESS",
    abi.SECCOMP_RET_KILL_THREAD: "KILL_THREAD",
    abi.SECCOMP_RET_TRAP: "TRAP",
    abi.SECCOMP_RET_ERRNO: "ERRNO",
    abi.SECCOMP_RET_USER_NOTIF: "USER_NOTIF",
    abi.SECCOMP_RET_TRACE: "TRACE",
    abi.SECCOMP_RET_LOG: "LOG",
    abi.SECCOMP_RET_ALLOW: "ALLOW",
}
_WITH_DATA = (abi.SECCOMP_RET_TRAP, abi.SECCOMP_RET_ERRNO, abi.SECCOMP_RET_TRACE)


def decode(program: bytes) -> Insns:
    """Take a program apart; BpfError if its length is no multiple of an instruction's 8 bytes."""
    try:
        return list(_SOCK_FILTER.iter_unpack(program))
    except error:
        raise BpfError(
            f"{counted(len(program), 'byte')}: not whole BPF instructions of 8 bytes"
        ) from None


def encode(insns: "Iterable[Insn]") -> bytes:
    """Put a program together; BpfError if a field is out of its range."""
    try:
        return b"".join([_SOCK_FILTER.pack(*insn) for insn in insns])
    except error as reason:
        raise BpfError(f"not a BPF instruction: {reason}") from None


def answering(arch: int, nr: int, value: int) -> Insns:
    """Return instructions that end with ``value`` for call ``nr`` of audit architecture ``arch``.

    Any other call meets what stands behind them, with its number or its architecture in A.
    """
    return [
        (LD_ABS, 0, 0, abi.SECCOMP_DATA_ARCH),
        (JEQ_K, 0, 3, arch),
        (LD_ABS, 0, 0, abi.SECCOMP_DATA_NR),
        (JEQ_K, 0, 1, nr),
        (RET_K, 0, 0, value),
    ]


def allow(program: bytes, arch: int, nr: int) -> bytes:
    """Let call ``nr`` of audit architecture ``arch`` through; all else meets ``program``.

    The old program follows byte for byte and starts with A = 0 as it did before: unless its first
    instruction loads A, the prefix clears it. BpfError: an empty program, or no room for the
    prefix.
    """
    return _put_before(program, answering(arch, nr, abi.SECCOMP_RET_ALLOW))


def refuse(program: bytes, arch: int, numbers: "Iterable[int]") -> bytes:
    """Answer the calls ``numbers`` with ENOSYS; the rest as of ``allow``.

    BpfError: also where they lie too far apart for one jump over all of them.
    """
    spans: list[list[int]] = []
    for nr in sorted(numbers):
        if spans and spans[-1][1] == nr - 1:
            spans[-1][1] = nr
        else:
            spans.append([nr, nr])
    tail: Insns = [(LD_ABS, 0, 0, abi.SECCOMP_DATA_NR)]
    for low, high in spans:
        tail += [
            (JGE_K, 0, 2, low),
            (JGT_K, 1, 0, high),
            (RET_K, 0, 0, abi.SECCOMP_RET_ENOSYS),
        ]
    return _put_before(
        program, [(LD_ABS, 0, 0, abi.SECCOMP_DATA_ARCH), (JEQ_K, 0, len(tail), arch), *tail]
    )


def front_length(program: bytes) -> int:
    """Return how many instructions that ``allow`` or ``refuse`` put in front come first; or 0."""
    first = decode(program[:16])
    if len(first) < 2 or first[0] != (LD_ABS, 0, 0, abi.SECCOMP_DATA_ARCH):
        return 0
    code, jt, jf, _ = first[1]
    return jf + 2 if (code, jt) == (JEQ_K, 0) else 0


def _put_before(program: bytes, prefix: Insns) -> bytes:
    insns = decode(program)
    if not insns:
        raise BpfError("there is no filter to put a permission in front of")
    if insns[0][0] & 7 != abi.BPF_LD:
        prefix.append((LD_IMM, 0, 0, 0))
    if len(prefix) + len(insns) > abi.BPF_MAXINSNS:
        more = counted(len(prefix), "more instruction")
        raise BpfError(
            f"no room for {more} behind the filter's {len(insns)}",
            hint=f"the kernel takes {abi.BPF_MAXINSNS}",
        )
    return encode(prefix) + program


def check(insns: Insns) -> None:
    """Raise BpfError exactly where the kernel would refuse the program with EINVAL.

    net/core/filter.c bpf_check_basics_ok(), bpf_check_classic() and check_load_and_stores(), then
    kernel/seccomp.c seccomp_check_filter().
    """
    length = len(insns)
    if not 0 < length <= abi.BPF_MAXINSNS:
        raise BpfError(f"a filter has 1 to {abi.BPF_MAXINSNS} instructions, this one {length}")
    for pc, (code, jt, jf, k) in enumerate(insns):
        if code in BRANCHES:
            if pc + 1 + max(jt, jf) >= length:
                raise BpfError(f"instruction {pc} jumps behind the end")
        elif code not in _ADMITTED:
            raise BpfError(f"instruction {pc} has code {code:#06x}, which seccomp does not admit")
        elif code == LD_ABS:
            if k >= abi.SECCOMP_DATA_SIZE or k & 3:
                raise BpfError(f"instruction {pc} loads offset {k}, not a word of seccomp_data")
        elif code == JA:
            if pc + 1 + k >= length:
                raise BpfError(f"instruction {pc} jumps behind the end")
        elif code in _MEMORY:
            if k >= abi.BPF_MEMWORDS:
                raise BpfError(f"instruction {pc} uses M[{k}] of {abi.BPF_MEMWORDS} words")
        elif code in _SHIFT_K:
            if k >= 32:
                raise BpfError(f"instruction {pc} shifts by {k} bits")
        elif code == _DIV_K and k == 0:
            raise BpfError(f"instruction {pc} divides by zero")
    if insns[-1][0] not in (RET_K, RET_A):
        raise BpfError("the last instruction is not a return")
    _check_memory(insns)


def _check_memory(insns: Insns) -> None:
    """Refuse a load of a memory word that some path has not stored, as check_load_and_stores()."""
    at_target: dict[int, int] = {}
    everything = (1 << abi.BPF_MEMWORDS) - 1
    stored = 0
    for pc, (code, jt, jf, k) in enumerate(insns):
        stored &= at_target.get(pc, everything)
        if code in (abi.BPF_ST, abi.BPF_STX):
            stored |= 1 << k
        elif code in (LD_MEM, LDX_MEM):
            if not stored >> k & 1:
                raise BpfError(f"instruction {pc} loads M[{k}], which nothing has stored")
        elif code in BRANCHES or code == JA:
            for jump in (k,) if code == JA else (jt, jf):
                target = pc + 1 + jump
                at_target[target] = at_target.get(target, everything) & stored
            stored = everything


def canonical(ret: int) -> int:
    """Return the return value that every equally treated one stands for (__seccomp_filter()).

    An unknown action kills the process, an errno is cut to MAX_ERRNO, and the data matters to
    TRAP, ERRNO and TRACE alone.
    """
    action, data = ret & abi.SECCOMP_RET_ACTION_FULL, ret & abi.SECCOMP_RET_DATA
    if action not in _ACTIONS:
        return abi.SECCOMP_RET_KILL_PROCESS
    if action == abi.SECCOMP_RET_ERRNO:
        return action | min(data, abi.MAX_ERRNO)
    return action | data if action in _WITH_DATA else action


def action_name(ret: int) -> str:
    """Name what the kernel does for a filter's return value: ``ALLOW``, ``ERRNO(1)``."""
    value = canonical(ret)
    action = value & abi.SECCOMP_RET_ACTION_FULL
    if action in _WITH_DATA:
        return f"{_ACTIONS[action]}({value & abi.SECCOMP_RET_DATA})"
    return _ACTIONS[action]


class BpfError(ShimError):
    """A program that the kernel would refuse, or that cannot be changed as asked."""
