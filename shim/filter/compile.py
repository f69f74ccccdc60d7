"""Flat OCI rules to a BPF program, through libseccomp and with the semantics of a runtime.

As runc's libcontainer/seccomp/seccomp_linux.go: a name that nobody knows is dropped, a rule that
does what the default does is skipped, several conditions on one argument become rules of their own,
and no_new_privs stays as it is. What runc puts in front afterwards, ENOSYS for numbers above all
that the profile names (patchbpf), is left out: two filters of this module compare like with like,
but one of them with a filter read from a runc container does not.
"""

import os
from typing import Any

from shim import abi, catalog
from shim.errors import ShimError
from shim.filter.bpf import LD_ABS, LD_IMM, RET_K, Insns, check, decode, encode
from shim.filter.flat import Condition, action, alternatives, version
from shim.filter.front import Rule, front
from shim.profile.says import names_of, sequence, strings, table

try:
    import pyseccomp
except RuntimeError:  # what pyseccomp raises where it finds no library
    raise ShimError(
        "there is no libseccomp", hint="install the package libseccomp2 (libseccomp)"
    ) from None

_OPERATORS = {
    "SCMP_CMP_NE": pyseccomp.NE,
    "SCMP_CMP_LT": pyseccomp.LT,
    "SCMP_CMP_LE": pyseccomp.LE,
    "SCMP_CMP_EQ": pyseccomp.EQ,
    "SCMP_CMP_GE": pyseccomp.GE,
    "SCMP_CMP_GT": pyseccomp.GT,
    "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ,
}
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
_UNKNOWN = -1  # __NR_SCMP_ERROR

_NATIVE = {pyseccomp.Arch.X86_64: "x86_64", pyseccomp.Arch.AARCH64: "aarch64"}

# The native architecture's 32-bit companions: audit architecture, the catalogue's key, ABI bit.
_COMPANIONS = {
    "SCMP_ARCH_X86": (abi.AUDIT_ARCH_I386, "i386", 0),
    "SCMP_ARCH_X32": (abi.AUDIT_ARCH_X86_64, "x32", abi.X32_SYSCALL_BIT),
    "SCMP_ARCH_ARM": (abi.AUDIT_ARCH_ARM, "arm", 0),
}


def build(
    seccomp: dict[str, Any] | None, libseccomp_version: str = "", *, native_only: bool = False
) -> "Built":
    """Compile ``linux.seccomp`` for this machine; None stands for no filter at all.

    Names that the local libseccomp lacks get their numbers from the catalogue. With
    ``libseccomp_version`` the names that the catalogue says that release did not know are dropped
    instead: what a runtime with that upstream library would load, which distributions may have
    taught more names (one outside the catalogue counts as known if the local library knows it).
    With ``native_only`` the catalogue's numbers are given on the native architecture alone, so that
    ``front`` stays empty. ShimError where a runtime would refuse the profile.
    """
    if seccomp is None or not (seccomp.get("defaultAction") or seccomp.get("syscalls")):
        return Built(None, [], 0)
    return _Builder(seccomp, version(libseccomp_version), native_only).built()


def program(seccomp: dict[str, Any] | None, libseccomp_version: str = "") -> bytes:
    """Give the BPF program of ``build``; without a profile, one that allows everything."""
    return build(seccomp, libseccomp_version).program()


def name_of(arch: int, nr: int) -> str:
    """Name a call of an audit architecture (x32: its bit in ``nr``), empty if none is known."""
    if arch == abi.AUDIT_ARCH_X86_64 and nr & abi.X32_SYSCALL_BIT:
        key, token = "x32", pyseccomp.Arch.X32
    else:
        key = {abi.AUDIT_ARCH_X86_64: "x86_64", abi.AUDIT_ARCH_I386: "i386"}.get(arch, "")
        token = arch
    for call in catalog.load().values():
        number = call.numbers.get(key)
        if number is not None and (number | abi.X32_SYSCALL_BIT if key == "x32" else number) == nr:
            return call.name
    try:
        return str(pyseccomp.resolve_syscall(token, nr).decode())
    except ValueError:
        return ""


class Built:
    """A filter in libseccomp's hands, and the instructions that have to go before it.

    ``filter`` is None where there is nothing to load; ``flags`` are those of seccomp(2). Where
    ``front`` is empty, ``filter.load()`` loads what ``program()`` gives.
    """

    __slots__ = ("filter", "flags", "front")

    def __init__(
        self,
        filter: "pyseccomp.SyscallFilter | None",  # noqa: A002 - libseccomp's own word for it
        front: Insns,
        flags: int,
    ) -> None:
        self.filter = filter
        self.front = front
        self.flags = flags

    def program(self) -> bytes:
        """Export the whole program; BpfError if it exceeds what the kernel takes."""
        if self.filter is None:
            return encode([(RET_K, 0, 0, abi.SECCOMP_RET_ALLOW)])
        with open(os.memfd_create("seccomp"), "w+b") as file:
            self.filter.export_bpf(file)
            file.seek(0)
            insns = decode(file.read())
        if self.front:
            reset = [] if insns[0][0] == LD_ABS else [(LD_IMM, 0, 0, 0)]
            insns = [*self.front, *reset, *insns]
        check(insns)
        return encode(insns)


class _Builder:
    """Two libseccomp filters, for the native architecture and for the others, merged at the end.

    On one filter for all, a number that libseccomp cannot name fails with EFAULT: it translates
    numbers between architectures by way of their names (arch.c arch_syscall_translate()).
    """

    def __init__(
        self, seccomp: dict[str, Any], release: tuple[int, ...], native_only: bool
    ) -> None:
        self.seccomp = seccomp
        self.release = release
        self.native_only = native_only
        self.default = action(seccomp, "defaultAction", "defaultErrnoRet", "")
        self.machine = _NATIVE.get(pyseccomp.system_arch(), "")
        self.architectures = dict.fromkeys(strings(seccomp, "architectures", ""))
        self.filters = [_new_filter(self.default), *self._companions()]
        self.front: list[Rule] = []
        self.catalog = catalog.load()

    def built(self) -> Built:
        flags = 0
        for flag in strings(self.seccomp, "flags", ""):
            if flag not in _FLAGS:
                raise ShimError(f"unknown flag {flag}", subject="/flags")
            flags |= _FLAGS[flag]
        for index, rule in enumerate(sequence(self.seccomp, "syscalls", "")):
            self._rule(table(rule, f"/syscalls/{index}"), f"/syscalls/{index}")
        native, *others = self.filters
        for other in others:
            native.merge(other)
        for bit, attribute in _ATTRIBUTES:
            if flags & bit:
                native.set_attr(attribute, 1)
        return Built(native, front(self.front), flags)

    def _companions(self) -> "list[pyseccomp.SyscallFilter]":
        """Give the filter for all architectures but the native one, or nothing if there is none."""
        tokens: list[int] = []
        for name in self.architectures:
            token = getattr(pyseccomp.Arch, name.removeprefix("SCMP_ARCH_"), None)
            if token is None:
                raise ShimError(f"libseccomp knows no {name}", subject="/architectures")
            tokens.append(token)
        native = pyseccomp.system_arch()
        others = [token for token in tokens if token not in (native, pyseccomp.Arch.NATIVE)]
        if not others:
            return []
        companions = _new_filter(self.default)
        companions.remove_arch(native)
        for token in others:
            try:
                companions.add_arch(token)
            except OSError as error:
                reason = f"libseccomp cannot add {token:#x}: {error.strerror}"
                raise ShimError(reason, subject="/architectures") from None
        return [companions]

    def _rule(self, rule: dict[str, Any], pointer: str) -> None:
        value = action(rule, "action", "errnoRet", pointer)
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
        call = self.catalog.get(name)
        if call and self.release and not self._known(call.libseccomp):
            return
        number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
        arguments = [
            pyseccomp.Arg(index, _OPERATORS[operator], one, two)
            for index, operator, one, two in conditions
        ]
        if number != _UNKNOWN:
            for each in self.filters:
                each.add_rule(value, number, *arguments)
        elif call:
            if self.machine in call.numbers:
                self.filters[0].add_rule(value, call.numbers[self.machine], *arguments)
            for architecture in () if self.native_only else self.architectures:
                arch, key, bit = _COMPANIONS.get(architecture, (0, "", 0))
                if key in call.numbers:
                    self.front.append((arch, call.numbers[key] | bit, value, conditions))

    def _known(self, since: str) -> bool:
        return bool(since) and version(since) <= self.release


def _new_filter(default: int) -> "pyseccomp.SyscallFilter":
    try:
        created = pyseccomp.SyscallFilter(default)
    except OSError as error:
        reason = f"libseccomp refuses it: {error.strerror}"
        raise ShimError(reason, subject="/defaultAction") from None
    created.set_attr(pyseccomp.Attr.CTL_NNP, 0)
    return created
