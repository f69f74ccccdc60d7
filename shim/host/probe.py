"""Ask this kernel what it does with a call that it injects: not its version, its behaviour.

Distribution kernels backport, so a release number decides nothing. Forked children make the call
from the wrong place, once without a filter and once under one that denies it (ERRNO(77)): what
comes back tells ``absent``, ``filtered`` and ``exempt`` apart. No privilege is needed.
"""

import os

from shim import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_MARK = 77  # an errno that no kernel gives for these calls
_ENOSYS = 38
_SIGILL = 4
_SECONDS = 10

# What a child reports as its exit code: an errno, or that the kernel raised SIGILL in it.
_RAISED_SIGILL = 254
_COULD_NOT_ASK = 255


def probe(calls: "dict[str, int]") -> "dict[str, dict[str, object]]":
    """Give for each of ``calls`` (name to x86-64 number) its ``nr``, ``state`` and, if any, reason.

    States: ``absent`` (the kernel has no such call), ``filtered`` (a seccomp filter decides, and
    one that denies it kills the process), ``exempt`` (the kernel lets it pass every filter; commit
    cf6cb56ef244), ``unknown``.
    """
    return {name: {"nr": nr, **_state(nr)} for name, nr in calls.items()}


def filtered_self() -> bool:
    """Tell whether this process runs under a seccomp filter."""
    with open("/proc/self/status", "rb") as file:
        return b"\nSeccomp:\t2\n" in file.read()


def _state(nr: int) -> "dict[str, object]":
    if os.uname().machine != "x86_64":
        return {"state": "absent"}  # only x86-64 has the trampolines (arch/x86/kernel/uprobes.c)
    bare = _ask(nr, under_filter=False)
    inside = filtered_self()
    if bare == _ENOSYS and not inside:
        return {"state": "absent"}
    if bare == _COULD_NOT_ASK:
        return {"state": "unknown", "reason": "the call could not be made"}
    if inside and bare != _RAISED_SIGILL:
        # The answer may be our own filter's, and what it hides cannot be seen from here.
        return {"state": "unknown", "reason": "the probe runs inside a seccomp filter itself"}
    filtered = _ask(nr, under_filter=True)
    if filtered == _MARK:
        return {"state": "filtered"}
    if filtered == bare:  # SIGILL for uretprobe, ENXIO or EPROTO for uprobe: the kernel answered
        return {"state": "exempt"}
    return {"state": "unknown", "reason": f"answer {bare} without a filter, {filtered} under one"}


def _ask(nr: int, *, under_filter: bool) -> int:
    """Call ``nr`` in a forked child and give the errno, or one of the codes above."""
    child = os.fork()
    if child == 0:
        _child(nr, under_filter)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return _RAISED_SIGILL if os.WTERMSIG(status) == _SIGILL else _COULD_NOT_ASK
    return os.WEXITSTATUS(status)


def _child(nr: int, under_filter: bool) -> "NoReturn":
    code = _COULD_NOT_ASK
    try:
        import _signal

        from shim.host import libc

        _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
        _signal.alarm(_SECONDS)
        # A pipe in core_pattern takes cores whatever RLIMIT_CORE says; this stops both kinds.
        libc.prctl(abi.PR_SET_DUMPABLE, 0)
        # A handler takes the kernel's force_sig(SIGILL) quietly; the call then returns.
        raised: list[int] = []
        _signal.signal(_signal.SIGILL, lambda number, _: raised.append(number))
        if under_filter:
            libc.prctl(abi.PR_SET_NO_NEW_PRIVS, 1)
            libc.set_filter(_denying(nr))
        try:
            libc.syscall(nr)
            code = 0
        except OSError as error:
            code = error.errno or 0
        if raised:
            code = _RAISED_SIGILL
    except Exception:  # noqa: S110 - the exit code says it; there is nobody to read more
        pass
    finally:
        os._exit(code)


def _denying(nr: int) -> bytes:
    """Give a filter that answers ERRNO(77) to ``nr`` of x86-64 and lets all else through."""
    ld, jeq, ret = abi.BPF_LD | abi.BPF_W | abi.BPF_ABS, abi.BPF_JMP | abi.BPF_JEQ, abi.BPF_RET
    insns = (
        (ld, 0, 0, abi.SECCOMP_DATA_ARCH),
        (jeq, 0, 3, abi.AUDIT_ARCH_X86_64),
        (ld, 0, 0, abi.SECCOMP_DATA_NR),
        (jeq, 0, 1, nr),
        (ret, 0, 0, abi.SECCOMP_RET_ERRNO | _MARK),
        (ret, 0, 0, abi.SECCOMP_RET_ALLOW),
    )
    return b"".join(
        code.to_bytes(2, "little") + bytes((jt, jf)) + k.to_bytes(4, "little")
        for code, jt, jf, k in insns
    )
