"""Put one permission in front of a filter and leave the filter itself byte for byte as it was."""

from shim import abi
from shim.bpf.program import LD_ABS, LD_IMM, RET_K, BpfError, decode, encode

_JEQ = abi.BPF_JMP | abi.BPF_JEQ | abi.BPF_K
_CLASS = 0x07
LENGTH = 5  # of a prefix before a program that loads A first, as all of libseccomp's do
CODES = frozenset((LD_ABS, LD_IMM, _JEQ, RET_K))  # all that a prefix is made of


def allow(program: bytes, arch: int, nr: int) -> bytes:
    """Let system call ``nr`` of audit architecture ``arch`` through; all else meets ``program``.

    The old program starts with A = 0 as it did before: unless its first instruction loads A, the
    prefix clears it. BpfError: an empty program, or no room for the prefix.
    """
    insns = decode(program)
    if not insns:
        raise BpfError("there is no filter to put a permission in front of")
    prefix = [
        (LD_ABS, 0, 0, abi.SECCOMP_DATA_ARCH),
        (_JEQ, 0, 3, arch),
        (LD_ABS, 0, 0, abi.SECCOMP_DATA_NR),
        (_JEQ, 0, 1, nr),
        (RET_K, 0, 0, abi.SECCOMP_RET_ALLOW),
    ]
    if insns[0][0] & _CLASS != abi.BPF_LD:
        prefix.append((LD_IMM, 0, 0, 0))
    if len(prefix) + len(insns) > abi.BPF_MAXINSNS:
        raise BpfError(
            f"no room for {len(prefix)} more instructions behind the filter's {len(insns)}",
            hint=f"the kernel takes {abi.BPF_MAXINSNS}",
        )
    return encode(prefix) + program
