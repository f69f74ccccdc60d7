"""Flat OCI rules to a BPF program, through libseccomp and with the semantics of a runtime.

As runc's libcontainer/seccomp/seccomp_linux.go: a name that nobody knows is dropped, a rule that
does what the default does is skipped, several conditions on one argument become rules of their own,
and no_new_privs stays as it is. What sets one runtime apart from another is ``model.py``'s.
"""

import os
from typing import Any

from shim import abi
from shim.bpf.program import LD_ABS, LD_IMM, RET_K, Insns, check, decode, encode
from shim.catalog.table import OFFSETS
from shim.catalog.table import names as table_names
from shim.errors import ShimError
from shim.profile.compile.prefix import Rule, prefix
from shim.profile.compile.rules import Condition, alternatives, return_value
from shim.profile.docker import architecture
from shim.profile.evaluate import names_of, sequence, strings, table
from shim.profile.libseccomp import AS_WRITTEN, KEYS, Names, pyseccomp
from shim.profile.validate import OPERATORS

_UNKNOWN = -1  # __NR_SCMP_ERROR
_OPERATORS = {name: getattr(pyseccomp, name.removeprefix("SCMP_CMP_")) for name in OPERATORS}
# The architectures of which a condition looks at the low half of an argument alone (and x32, which
# shares the machine's own way).
_OF_32_BITS = tuple(
    getattr(pyseccomp.Arch, name)
    for name in ("X86", "X32", "ARM", "MIPS", "MIPSEL", "PARISC", "PPC", "S390")
)
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # runc knows it and ignores it: it loads with it anyway
    "SECCOMP_FILTER_FLAG_LOG": abi.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": abi.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": abi.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}
_ATTRIBUTES = (
    (abi.SECCOMP_FILTER_FLAG_LOG, pyseccomp.Attr.CTL_LOG),
    (abi.SECCOMP_FILTER_FLAG_SPEC_ALLOW, pyseccomp.Attr.CTL_SSB),
)


def build(
    seccomp: dict[str, Any] | None,
    libseccomp: str = AS_WRITTEN,
    *,
    native_only: bool = False,
    arch: int | None = None,
) -> "Built":
    """Compile ``linux.seccomp``; None stands for no filter at all.

    ``arch`` is libseccomp's token for the architecture that the filter has beside those listed:
    None for this machine's, and so for a filter that can be loaded here.

    ``libseccomp`` says which names are dropped, as for ``Names``: what a runtime with that upstream
    release would load, which distributions may have taught more names. With ``native_only`` the
    catalogue's numbers are given on the native architecture alone, so that ``prefix`` stays empty.
    ShimError where a runtime would refuse the profile.
    """
    names = Names(libseccomp)
    if seccomp is None or not (seccomp.get("defaultAction") or seccomp.get("syscalls")):
        return Built(None, [], 0)
    arch = native() if arch is None else arch
    if (arch ^ native()) & abi.AUDIT_ARCH_LE:
        # Its instructions, and the order of the halves of an argument, are another machine's.
        why = "libseccomp makes its filter for the other endianness, which is not read here"
        raise ShimError(why, hint="ask on such a machine")
    return _Builder(seccomp, names, native_only, arch).built()


def program(seccomp: dict[str, Any] | None, libseccomp: str = AS_WRITTEN) -> bytes:
    """Return the BPF program of ``build``; without a profile, one that allows everything."""
    return build(seccomp, libseccomp).program()


def native() -> int:
    """Return libseccomp's token for the architecture that every filter has."""
    return int(pyseccomp.system_arch())


def tokens(seccomp: dict[str, Any]) -> list[int]:
    """Return libseccomp's tokens for the architectures that a profile lists, each once."""
    found: list[int] = []
    for name in strings(seccomp, "architectures", ""):
        token = getattr(pyseccomp.Arch, name.removeprefix("SCMP_ARCH_"), None)
        if token is None:
            raise ShimError(f"libseccomp knows no {name}", subject="/architectures")
        found.append(native() if token == pyseccomp.Arch.NATIVE else token)
    return list(dict.fromkeys(found))


def token_of(machine: str) -> int:
    """Return libseccomp's token for the architecture that uname calls ``machine``."""
    return int(getattr(pyseccomp.Arch, architecture(machine).removeprefix("SCMP_ARCH_")))


def name_of(arch: int, nr: int) -> str:
    """Name a call of an audit architecture (x32: its bit in ``nr``), empty if none is known."""
    is_x32 = arch == abi.AUDIT_ARCH_X86_64 and nr & abi.X32_SYSCALL_BIT
    token = pyseccomp.Arch.X32 if is_x32 else arch
    key = KEYS.get(token, "")
    if name := table_names(key).get(nr - OFFSETS.get(key, 0)):
        return name
    try:
        return str(pyseccomp.resolve_syscall(token, nr).decode())
    except ValueError:
        return ""


class Built:
    """A filter in libseccomp's hands, and the instructions that have to go before it.

    ``filter`` is None where there is nothing to load; ``flags`` are those of seccomp(2). Where
    ``prefix`` is empty, ``filter.load()`` loads what ``program()`` gives.
    """

    __slots__ = ("filter", "flags", "prefix")

    def __init__(
        self,
        filter: "pyseccomp.SyscallFilter | None",  # noqa: A002 - libseccomp's own word for it
        prefix: Insns,
        flags: int,
    ) -> None:
        self.filter = filter
        self.prefix = prefix
        self.flags = flags

    def program(self) -> bytes:
        """Export the whole program; BpfError if it exceeds what the kernel takes."""
        if self.filter is None:
            return encode([(RET_K, 0, 0, abi.SECCOMP_RET_ALLOW)])
        with open(os.memfd_create("seccomp"), "w+b") as file:
            self.filter.export_bpf(file)
            file.seek(0)
            insns = decode(file.read())
        if self.prefix:
            reset = [] if insns[0][0] == LD_ABS else [(LD_IMM, 0, 0, 0)]
            insns = [*self.prefix, *reset, *insns]
        check(insns)
        return encode(insns)


class _Builder:
    """Two libseccomp filters, for the native architecture and for the others, merged at the end.

    On one filter for all, a number that libseccomp cannot name fails with EFAULT: it translates
    numbers between architectures by way of their names (arch.c arch_syscall_translate()).
    """

    def __init__(self, seccomp: dict[str, Any], names: Names, native_only: bool, arch: int) -> None:
        self.arch = arch
        self.seccomp = seccomp
        self.names = names
        self.native_only = native_only
        self.default = return_value(seccomp, "defaultAction", "defaultErrnoRet", "")
        self.others = [token for token in tokens(seccomp) if token != arch]
        whole = _new_filter(self.default)
        if arch != native():
            whole.remove_arch(native())
            whole.add_arch(arch)
        self.filters = [whole, *self._companions()]
        self.prefix: list[Rule] = []

    def built(self) -> Built:
        flags = 0
        for flag in strings(self.seccomp, "flags", ""):
            if flag not in _FLAGS:
                raise ShimError(f"unknown flag {flag}", subject="/flags")
            flags |= _FLAGS[flag]
        for index, rule in enumerate(sequence(self.seccomp, "syscalls", "")):
            self._rule(table(rule, f"/syscalls/{index}"), f"/syscalls/{index}")
        whole, *others = self.filters
        for other in others:
            try:
                whole.merge(other)
            except OSError as error:  # of other endianness than the native one
                reason = f"libseccomp cannot add them: {error.strerror}"
                raise ShimError(reason, subject="/architectures") from None
        for bit, attribute in _ATTRIBUTES:
            if flags & bit:
                whole.set_attr(attribute, 1)
        return Built(whole, prefix(self.prefix), flags)

    def _companions(self) -> "list[pyseccomp.SyscallFilter]":
        """Return the filter for all architectures but the native one; nothing: there are none."""
        if not self.others:
            return []
        companions = _new_filter(self.default)
        companions.remove_arch(native())
        for token in self.others:
            try:
                companions.add_arch(token)
            except OSError as error:
                reason = f"libseccomp cannot add {token:#x}: {error.strerror}"
                raise ShimError(reason, subject="/architectures") from None
        return [companions]

    def _rule(self, rule: dict[str, Any], pointer: str) -> None:
        value = return_value(rule, "action", "errnoRet", pointer)
        if value == self.default:
            return
        conditions = alternatives(rule, pointer)
        for name in names_of(rule, pointer):
            for each in conditions:
                try:
                    self._call(name, value, each)
                except OSError as error:
                    reason = f"libseccomp refuses {name}: {error.strerror}"
                    raise ShimError(reason, subject=pointer) from None

    def _call(self, name: str, value: int, conditions: tuple[Condition, ...]) -> None:
        if not self.names.knows(name):
            return
        arguments = [
            pyseccomp.Arg(index, _OPERATORS[operator], one, two)
            for index, operator, one, two in conditions
        ]
        numbers = {arch: self.names.number(name, arch) for arch in (self.arch, *self.others)}
        if all(self.names.here(name, arch) == number for arch, number in numbers.items()):
            number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
            for each in self.filters if number != _UNKNOWN else ():
                each.add_rule(value, number, *arguments)
            return
        # libseccomp here would give it other numbers, or none.
        if self.arch == native() and (mine := numbers.pop(self.arch)) is not None:
            self.filters[0].add_rule(value, mine, *arguments)
        for arch, number in {} if self.native_only else numbers.items():
            if number is not None:
                if conditions and arch not in _OF_32_BITS:
                    raise ShimError(
                        "libseccomp here has no number for it, so its conditions cannot be read "
                        f"for {KEYS.get(arch)}",
                        subject=name,
                    )
                audit = abi.AUDIT_ARCH_X86_64 if arch == pyseccomp.Arch.X32 else arch
                self.prefix.append((audit, number, value, conditions))


def _new_filter(default: int) -> "pyseccomp.SyscallFilter":
    try:
        created = pyseccomp.SyscallFilter(default)
    except OSError as error:
        reason = f"libseccomp refuses it: {error.strerror}"
        raise ShimError(reason, subject="/defaultAction") from None
    created.set_attr(pyseccomp.Attr.CTL_NNP, 0)
    return created
