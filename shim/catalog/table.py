"""All calls, from calls.tsv, and their numbers; the container start path imports none of it."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from shim import abi
from shim.catalog import Syscall

# What an ABI adds to all of its numbers (arch/mips/include/uapi/asm/unistd.h for MIPS).
OFFSETS = {"x32": abi.X32_SYSCALL_BIT, "mips": 4000, "mips64": 5000, "mips64n32": 6000}

# What profiles call the architectures (SCMP_ARCH_...); those of one table differ in endianness.
ARCHITECTURES = {
    "X86_64": "x86_64", "X86": "i386", "X32": "x32", "AARCH64": "aarch64", "ARM": "arm",
    "LOONGARCH64": "loongarch64", "M68K": "m68k", "MIPS": "mips", "MIPSEL": "mips",
    "MIPS64": "mips64", "MIPSEL64": "mips64", "MIPS64N32": "mips64n32",
    "MIPSEL64N32": "mips64n32", "PARISC": "parisc", "PARISC64": "parisc64", "PPC": "ppc",
    "PPC64": "ppc64", "PPC64LE": "ppc64", "RISCV64": "riscv64", "S390": "s390", "S390X": "s390x",
    "SH": "sh", "SHEB": "sh",
}  # fmt: skip


@cache
def calls() -> Mapping[str, Syscall]:
    """Return every call by name."""
    text = (Path(__file__).parent / "calls.tsv").read_text(encoding="utf-8")
    return {call.name: call for call in map(_call, text.splitlines())}


def _call(line: str) -> Syscall:
    name, kernel, libseccomp, kind, listed, risk, users = line.split("\t")
    numbers = {}
    for pair in listed.split():
        arch, _, number = pair.partition("=")
        numbers[arch] = int(number)
    return Syscall(name, numbers, kind, libseccomp, kernel, risk, users)


def since(call: Syscall) -> tuple[int, ...]:
    """Return the first kernel release that has ``call``, to compare with others."""
    return tuple(int(part) for part in call.kernel.split(".")) if call.kernel else ()


@cache
def numbers() -> Mapping[str, Mapping[str, int]]:
    """Return the numbers of all calls by name, for each architecture (x32: without its bit)."""
    tables: dict[str, dict[str, int]] = {}
    for call in calls().values():
        for arch, number in call.numbers.items():
            tables.setdefault(arch, {})[call.name] = number
    return tables


@cache
def names(arch: str) -> Mapping[int, str]:
    """Return the names of an architecture's calls by number."""
    return {number: name for name, number in numbers().get(arch, {}).items()}


def is_call(arch: str, number: int) -> bool:
    """Tell whether a kernel has, or may come to have, a call of that number."""
    taken = names(arch)
    return number in taken or number > max(taken, default=0)
