"""What a runtime loads for a profile: runc's and crun's own parts of it. Pure but for libseccomp.

Read in runc's libcontainer (specconv/spec_linux.go, seccomp/, seccomp/patchbpf/enosys_linux.go of
1.0.0-rc93 to 1.5.1) and crun's src/libcrun/seccomp.c (0.18 to 1.28); docs/model.md says for which
runtimes it is proven equal to the filter that a container really got.
"""

from base64 import b64decode
from binascii import Error
from collections.abc import Mapping
from typing import Any, NamedTuple

from shim import abi
from shim.bpf.program import LD_ABS, RET_K, BpfError, Insns, check, decode, encode
from shim.errors import ShimError
from shim.host.runtimes import numbers
from shim.profile.compile import Built, build, native, tokens
from shim.profile.compile.rules import return_value
from shim.profile.evaluate import action_of, names_of, sequence, strings, table
from shim.profile.libseccomp import Names, pyseccomp

RAW_BPF = "run.oci.seccomp_bpf_data"
FAIL_UNKNOWN = "run.oci.seccomp_fail_unknown_syscall"

_ENOSYS = abi.SECCOMP_RET_ENOSYS
# An errno that runc never sees as ENOSYS: it compares with the whole return value.
_NO_LINE = _ENOSYS
_JGT = abi.BPF_JMP | abi.BPF_JGT | abi.BPF_K
_JEQ = abi.BPF_JMP | abi.BPF_JEQ | abi.BPF_K
_JSET = abi.BPF_JMP | abi.BPF_JSET | abi.BPF_K

# What runc knows beside the architectures of 1.0 (libcontainer/seccomp/config.go).
_RUNC_ARCHITECTURES = {"RISCV64": (1, 1, 8)}
_NOT_RUNCS = ("PARISC", "PARISC64", "M68K", "SH", "SHEB")
_RUNC_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": (0, (1, 2)),
    "SECCOMP_FILTER_FLAG_LOG": (abi.SECCOMP_FILTER_FLAG_LOG, (1, 2)),
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": (abi.SECCOMP_FILTER_FLAG_SPEC_ALLOW, (1, 2)),
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": (abi.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, (1, 5)),
}
_CRUN_FLAGS = {
    **{name: flag for name, (flag, _) in _RUNC_FLAGS.items()},
    "SECCOMP_FILTER_FLAG_TSYNC": abi.SECCOMP_FILTER_FLAG_TSYNC,
}


class Loader(NamedTuple):
    """A runtime: ``runc`` or ``crun``, its version, and its libseccomp's as ``Names`` has it.

    ``arch`` is libseccomp's token for the machine that it runs on; None: this one's.
    """

    program: str
    version: str
    libseccomp: str
    arch: int | None = None


# The newest of each kind, with a libseccomp that knows every name.
NEWEST = (Loader("runc", "1.5.1", ""), Loader("crun", "1.28", ""))


class Loaded(NamedTuple):
    """What is loaded: the program (empty: no filter), seccomp(2)'s flags, and what shaped it.

    ``dropped`` are the names that libseccomp does not know; ``lines`` are the largest numbers below
    runc's ENOSYS answers by libseccomp's architecture, where there are such answers; ``default`` is
    the return value for other calls.
    """

    program: bytes
    flags: int
    dropped: tuple[str, ...]
    lines: dict[int, int]
    default: int | None = None


def loaded(
    seccomp: dict[str, Any] | None, loader: Loader, annotations: Mapping[str, str] | None = None
) -> Loaded:
    """Tell what ``loader`` loads for ``linux.seccomp``; ShimError: it starts no container with it.

    ``annotations`` are the container's. libseccomp's errors at load time and listeners are not part
    of it.
    """
    if loader.program == "runc":
        return _runc(seccomp, loader)
    if loader.program == "crun":
        return _crun(seccomp, loader, annotations or {})
    raise ShimError("is no runtime whose filters are modelled", subject=loader.program)


def whole(loaded_: Loaded) -> bytes:
    """Return the program to compare: where nothing is loaded, one that allows everything."""
    return loaded_.program or encode([(RET_K, 0, 0, abi.SECCOMP_RET_ALLOW)])


def _runc(seccomp: dict[str, Any] | None, loader: Loader) -> Loaded:
    names = Names(loader.libseccomp)
    release = _release(loader.version)
    if seccomp is None or not (seccomp.get("defaultAction") or seccomp.get("syscalls")):
        return Loaded(b"", 0, (), {})
    if release < (1, 0, 0) or loader.version.startswith("1.0.0-"):
        raise ShimError("runc before 1.0.0 is not modelled", subject=loader.version)
    flags = _runc_flags(seccomp, release)
    _refuse_runc(seccomp, release)
    built = build({**seccomp, "flags": []}, loader.libseccomp, arch=loader.arch)
    if any(
        action_of(table(rule, ""), "action", f"/syscalls/{index}") == "SCMP_ACT_NOTIFY"
        for index, rule in enumerate(sequence(seccomp, "syscalls", ""))
    ):
        flags |= abi.SECCOMP_FILTER_FLAG_NEW_LISTENER
    own = native() if loader.arch is None else loader.arch
    lines = _lines(seccomp, names, [own] if release >= (1, 1, 15) else [])
    return Loaded(
        _joined(_stub(lines), built), flags, _dropped(seccomp, names), lines, _default(seccomp)
    )


def _runc_flags(seccomp: dict[str, Any], release: tuple[int, ...]) -> int:
    listed = strings(seccomp, "flags", "")
    if release < (1, 2):
        if listed:
            raise ShimError("runc before 1.2 takes no flags", subject="/flags")
        return 0
    if seccomp.get("flags") is None:
        return abi.SECCOMP_FILTER_FLAG_SPEC_ALLOW
    flags = 0
    for name in listed:
        flag, since = _RUNC_FLAGS.get(name, (0, (99,)))
        if release < since:
            raise ShimError(f"unknown flag {name}", subject="/flags")
        flags |= flag
    return flags


def _refuse_runc(seccomp: dict[str, Any], release: tuple[int, ...]) -> None:
    if action_of(seccomp, "defaultAction", "") == "SCMP_ACT_NOTIFY":
        raise ShimError("runc takes no SCMP_ACT_NOTIFY as default", subject="/defaultAction")
    for architecture in strings(seccomp, "architectures", ""):
        name = architecture.removeprefix("SCMP_ARCH_")
        if name in _NOT_RUNCS or release < _RUNC_ARCHITECTURES.get(name, ()):
            raise ShimError(f"this runc knows no {architecture}", subject="/architectures")
    for index, rule in enumerate(sequence(seccomp, "syscalls", "")):
        pointer = f"/syscalls/{index}"
        names = names_of(table(rule, pointer), pointer)
        if "" in names:
            raise ShimError("runc takes no empty name", subject=pointer)
        if "write" in names and table(rule, pointer).get("action") == "SCMP_ACT_NOTIFY":
            raise ShimError("runc hands write to no listener", subject=pointer)


def _lines(seccomp: dict[str, Any], names: Names, implied: list[int]) -> dict[int, int]:
    """Return the largest number that any rule names, by architecture; nothing for a lax default.

    A rule that does what the default does counts, and a name whose largest number is 0 does not
    (patchbpf, findLastSyscalls). Those of ``implied`` need not be listed.
    """
    default = action_of(seccomp, "defaultAction", "")
    if default in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"):
        return {}
    if seccomp.get("defaultErrnoRet") == _NO_LINE:
        return {}
    named = {
        name
        for index, rule in enumerate(sequence(seccomp, "syscalls", ""))
        for name in names_of(table(rule, ""), f"/syscalls/{index}")
    }
    found = {}
    for arch in dict.fromkeys([*tokens(seccomp), *implied]):
        largest = max((names.number(name, arch) or 0 for name in named), default=0)
        if largest:
            found[arch] = largest
    return found


def _stub(lines: dict[int, int]) -> Insns:
    """Return instructions that answer ENOSYS to the numbers above the lines."""
    insns: Insns = []
    for arch, largest in lines.items():
        is_x32 = arch == pyseccomp.Arch.X32
        audit = abi.AUDIT_ARCH_X86_64 if is_x32 else arch
        tail: Insns = [(_JGT, 0, 1, largest), (RET_K, 0, 0, _ENOSYS)]
        if audit == abi.AUDIT_ARCH_X86_64:
            jump = (0, len(tail)) if is_x32 else (len(tail), 0)
            tail.insert(0, (_JSET, *jump, abi.X32_SYSCALL_BIT))
        tail.insert(0, (LD_ABS, 0, 0, abi.SECCOMP_DATA_NR))
        insns += [(LD_ABS, 0, 0, abi.SECCOMP_DATA_ARCH), (_JEQ, 0, len(tail), audit), *tail]
    return insns


def _crun(seccomp: dict[str, Any] | None, loader: Loader, annotations: Mapping[str, str]) -> Loaded:
    names = Names(loader.libseccomp)
    if seccomp is None:
        return Loaded(b"", 0, (), {})
    flags = _crun_flags(seccomp)
    if RAW_BPF in annotations:
        try:
            program = b64decode(annotations[RAW_BPF], validate=True)
            check(decode(program))
        except (Error, BpfError) as error:
            raise ShimError(f"crun cannot load it: {error}", subject=RAW_BPF) from None
        return Loaded(program, flags, (), {})
    default = action_of(seccomp, "defaultAction", "")
    _refuse_errno(seccomp, default, "defaultErrnoRet", "")
    rules = []
    for index, each in enumerate(sequence(seccomp, "syscalls", "")):
        pointer = f"/syscalls/{index}"
        rule = table(each, pointer)
        _refuse_errno(rule, action_of(rule, "action", pointer), "errnoRet", pointer)
        # It looks at six conditions and no more.
        rules.append({**rule, "args": sequence(rule, "args", pointer)[:6]})
    flat = {**seccomp, "flags": [], "syscalls": rules}
    dropped = _dropped(flat, names)
    if dropped and annotations.get(FAIL_UNKNOWN, "0") != "0":
        raise ShimError(f"crun is told to refuse unknown names: {dropped[0]}", subject=FAIL_UNKNOWN)
    program = build(flat, loader.libseccomp, arch=loader.arch).program()
    return Loaded(program, flags, dropped, {}, _default(seccomp))


def _crun_flags(seccomp: dict[str, Any]) -> int:
    listed = strings(seccomp, "flags", "")
    if seccomp.get("flags") is None:
        return abi.SECCOMP_FILTER_FLAG_SPEC_ALLOW
    flags = 0
    for name in listed:
        if name not in _CRUN_FLAGS:
            raise ShimError(f"unknown flag {name}", subject="/flags")
        flags |= _CRUN_FLAGS[name]
    return flags


def _refuse_errno(where: dict[str, Any], value: str, key: str, pointer: str) -> None:
    if where.get(key) is not None and value not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        raise ShimError(f"crun takes no errno beside {value}", subject=f"{pointer}/{key}")


def _dropped(seccomp: dict[str, Any], names: Names) -> tuple[str, ...]:
    """Return the names of rules that are not the default's and that libseccomp does not know."""
    default = _default(seccomp)
    found: dict[str, None] = {}
    for index, rule in enumerate(sequence(seccomp, "syscalls", "")):
        pointer = f"/syscalls/{index}"
        if return_value(table(rule, pointer), "action", "errnoRet", pointer) != default:
            listed = names_of(table(rule, pointer), pointer)
            found |= dict.fromkeys(name for name in listed if not names.knows(name))
    return tuple(found)


def _default(seccomp: dict[str, Any]) -> int:
    return return_value(seccomp, "defaultAction", "defaultErrnoRet", "")


def _joined(stub: Insns, built: Built) -> bytes:
    program = built.program()
    if not stub:
        return program
    insns = [*stub, *decode(program)]
    check(insns)
    return encode(insns)


def _release(text: str) -> tuple[int, ...]:
    """Read a runtime's version: its numbers, whatever a distribution or git put behind them."""
    if not text[:1].isdecimal():
        raise ShimError("is no version", subject=text)
    return numbers(text)
