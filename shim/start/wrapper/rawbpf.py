"""The whole filter of a container as one program, for crun, which takes it as an annotation.

crun looks at ``run.oci.seccomp_bpf_data`` at create and run, writes the program to the container's
state in place of what it would have compiled, and loads it from there, for every exec too
(src/libcrun/container.c, setup_seccomp, seccomp_generation; since 0.18). The flags and the listener
of ``linux.seccomp`` stay in force beside it. Compiling takes a second, so a program is kept.
"""

from shim import abi, files, runtime_directory
from shim import lightos as os
from shim.errors import ShimError
from shim.start.digest import sha256
from shim.startjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.bpf.equivalence import VerdictChange
    from shim.host.runtimes import Runtime

_SINCE = "0.18"
_EPERM = abi.SECCOMP_RET_ERRNO | 1
# A file is the SHA-256 of the program, in hexadecimal, and the program.
_HEAD = 64
_LIMIT = _HEAD + 8 * abi.BPF_MAXINSNS
_KEEP = 200
# With these crun does something with a profile that a program cannot stand for.
_ANNOTATIONS = (
    "run.oci.seccomp_fail_unknown_syscall",
    "run.oci.seccomp.plugins",
    "run.oci.seccomp.receiver",
)


def unfit(config: "dict[str, object]", runtime: "Runtime") -> str:
    """Say why a container of ``runtime`` cannot be given a program; empty: it can."""
    if not runtime.is_at_least("crun", _SINCE) or not runtime.libseccomp:
        return f"{runtime.program or runtime.path} takes none"
    annotations = config.get("annotations") or {}
    for name in _ANNOTATIONS:
        if name in annotations:  # type: ignore[operator]  # an object: denied_by_default has looked
            return f"the annotation {name} is there already"
    linux = config.get("linux") or {}
    seccomp = linux.get("seccomp")  # type: ignore[attr-defined]
    if not seccomp:
        return "there is no profile to make it of"  # but a program that is there already
    if seccomp.get("listenerPath") or "SCMP_ACT_NOTIFY" in dumps(seccomp):
        return "a listener decides on some calls"
    return ""


def program(
    seccomp: "dict[str, object]",
    calls: "dict[str, int]",
    runtime: "Runtime",
    refused: "dict[str, int] | None" = None,
) -> "tuple[bytes, bool]":
    """Return the filter of profile ``seccomp`` that lets ``calls`` through; whether it was kept.

    ``refused`` get ENOSYS in it, in place of EPERM. ShimError: it cannot be made. LeftAlone: the
    filter lets all of them through as it is.
    """
    about = [seccomp, calls, refused, runtime.identity, runtime.libseccomp]
    key = sha256(dumps(about).encode())
    directory, _ = runtime_directory.directory("bpf")
    kept = _read(directory, key) if directory >= 0 else b""
    if kept:
        os.close(directory)
        return kept, True
    made = _compile(seccomp, calls, runtime.libseccomp or "", refused or {})
    if directory >= 0:
        _write(directory, key, made)
        os.close(directory)
    return made, False


def _compile(
    seccomp: "dict[str, object]", calls: "dict[str, int]", release: str, refused: "dict[str, int]"
) -> bytes:
    """Make the program through libseccomp and prove what it changes."""
    try:
        from shim.bpf.equivalence import difference
        from shim.host.libseccomp import system_libseccomp
        from shim.profile.compile import build
        from shim.start.inject.augment import augment
    except ImportError as error:
        raise ShimError(f"cannot compile a filter: {error}") from None
    rules = seccomp.get("syscalls") or []
    names = [name for rule in rules for name in rule.get("names") or []]  # type: ignore[attr-defined]
    version, known = system_libseccomp(list(dict.fromkeys(names)))
    if version != release:
        raise ShimError(f"libseccomp is {version} here, the runtime's is {release}")
    for rule in (seccomp, *rules):  # type: ignore[misc]
        action, key = (
            ("defaultAction", "defaultErrnoRet") if rule is seccomp else ("action", "errnoRet")
        )
        if rule.get(key) is not None and rule.get(action) not in (
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_TRACE",
        ):
            raise ShimError("an errno beside an action that has none: crun refuses it")
    # crun drops the names that its library does not resolve; the catalogue's numbers stay out too.
    resolved = [
        {**rule, "names": [name for name in rule.get("names") or [] if known[name]]}
        for rule in rules  # type: ignore[attr-defined]
    ]
    before = build({**seccomp, "syscalls": resolved}).program()
    after, _ = augment(before, calls, refused)
    found = difference(before, after)
    letting, enosys = set(calls.values()), set(refused.values())
    answered = {
        nr
        for each in found.changes
        if each.after == abi.SECCOMP_RET_ENOSYS
        for nr in range(each.nr.low, min(each.nr.high, max(enosys, default=-1)) + 1)
    }
    if not (
        found.complete
        and found.changes
        and answered == enosys
        and all(_only(letting, enosys, each) for each in found.changes)
    ):
        raise ShimError(f"the proof failed: {found.reason or '; '.join(map(str, found.changes))}")
    return after


def _only(letting: set[int], enosys: set[int], change: "VerdictChange") -> bool:
    """Tell whether a change does no more than let some through, or have some get ENOSYS."""
    numbers = range(change.nr.low, change.nr.high + 1)
    refused = change.after == abi.SECCOMP_RET_ENOSYS and change.before == _EPERM
    meant = enosys if refused else letting
    return (
        (change.arch_name, change.condition) == ("x86_64", "")
        and (refused or change.after == abi.SECCOMP_RET_ALLOW)
        and change.nr.is_range
        and len(numbers) <= len(meant)
        and set(numbers) <= meant
    )


def _read(directory: int, key: str) -> bytes:
    """Return the program kept as ``key``, empty if there is none that is whole and ours."""
    try:
        fd = files.open_regular(key, os.O_NOFOLLOW, dir_fd=directory)
    except OSError:
        return b""
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            return b""
        data = os.read(fd, _LIMIT + 1)
    finally:
        os.close(fd)
    program = data[_HEAD:]
    return program if program and data[:_HEAD] == sha256(program).encode() else b""


def _write(directory: int, key: str, program: bytes) -> None:
    """Keep a program; where that does not go, the next start compiles it again."""
    from shim import atomic

    data = sha256(program).encode() + program
    try:
        names = os.listdir(directory)
        for name in names if len(names) > _KEEP else ():
            os.unlink(name, dir_fd=directory)
        atomic.write_atomic(key, data, 0o600, dir_fd=directory)
    except OSError:
        pass
