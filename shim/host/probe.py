"""Find out by trying what the kernel does with its injected calls under a filter.

Never by version number: distribution kernels carry the fix that lets these calls pass seccomp
(commit cf6cb56ef244) or the calls themselves (190fec72df4a, 56101b69c919) far from their release.
"""

import errno
import os
import sys

from shim import abi
from shim.bpf.program import RET_K, answering, encode
from shim.errors import ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_MARK = 77  # EBADFD: what our own filter answers, and the kernel does not answer to these calls
_SECONDS = 5
# What the calls say when made from elsewhere than the kernel's trampoline
# (arch/x86/kernel/uprobes.c): uretprobe SIGILL; uprobe ENXIO, EPROTO on newer kernels.
_OWN_ANSWERS = ("SIGILL", errno.errorcode[errno.ENXIO], errno.errorcode[errno.EPROTO])
_ABSENT = errno.errorcode[errno.ENOSYS]
_MARKED = errno.errorcode[_MARK]


def probe(calls: "dict[str, int]") -> "dict[str, dict[str, object]]":
    """Return ``{name: {"nr", "state", "reason"?}}`` for ``calls`` (name to x86-64 number).

    ``absent``: the kernel has no such call. ``filtered``: a filter decides on it. ``exempt``: no
    filter ever sees it. ``unknown``: it cannot be told, ``reason`` says why. Needs no privilege;
    each try is made in a forked child.
    """
    found: dict[str, dict[str, object]] = {}
    for name, nr in calls.items():
        state, reason = _state(nr)
        found[name] = {"nr": nr, "state": state}
        if reason:
            found[name]["reason"] = reason
    return found


def filtered_self() -> bool:
    """Tell whether this thread is itself under a seccomp filter, which may answer it with lies."""
    from shim.host import libc

    try:
        return libc.prctl(abi.PR_GET_SECCOMP) != 0
    except OSError as error:
        # EINVAL: a kernel without seccomp. Anything else is a filter that forbids the question.
        return error.errno != errno.EINVAL


def _state(nr: int) -> "tuple[str, str]":
    """Return the state of call ``nr`` and, where it is unknown, the reason."""
    # Under the personality PER_LINUX32 an x86-64 kernel calls itself i686.
    if os.uname().machine not in {"x86_64", "i686"}:
        return "absent", ""
    if sys.maxsize < 1 << 32:
        return "unknown", "a 32-bit process cannot make 64-bit calls"
    doubt = filtered_self()
    try:
        alone = _answer(nr, under_filter=False)
        if alone == _ABSENT and not doubt:
            return "absent", ""
        under = _answer(nr, under_filter=True)
    except (OSError, ShimError) as error:
        return "unknown", str(error)
    if under == _MARKED:
        if not doubt or alone == "SIGILL":  # an errno may be the other filter's
            return "filtered", ""
        return "unknown", f"the probe runs inside a seccomp filter itself, which answers {alone}"
    if under == _ABSENT:  # seen by no filter and by no kernel either (CONFIG_UPROBES=n)
        return "absent", ""
    # Of several filters' errnos the newest filter's counts, ours: this answer is the kernel's.
    if under in _OWN_ANSWERS or (under == alone and not doubt):
        return "exempt", ""
    return "unknown", f"under a filter the call ends with {under}, without one with {alone}"


def _answer(nr: int, *, under_filter: bool) -> str:
    """Make call ``nr`` in a child and give the name of the errno or signal it is answered with.

    OSError, ShimError: the child could not be made ready.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _run_caller(nr, under_filter, writer)
    os.close(writer)
    try:
        text = os.read(reader, 200).decode()
    finally:
        os.close(reader)
        try:
            status = os.waitpid(child, 0)[1]
        except ChildProcessError:  # SIGCHLD is ignored: the kernel has reaped the child
            status = 0
    if text.startswith("answer "):
        return text.removeprefix("answer ")
    if os.WIFSIGNALED(status):
        return _signal_name(os.WTERMSIG(status))
    raise ShimError(text or "the child that makes the call gave no answer")


def _run_caller(nr: int, under_filter: bool, writer: int) -> "NoReturn":
    """Make the call, write how it was answered, and end this process."""
    from shim.host import libc

    try:
        try:
            _prepare(writer)
            if under_filter:
                libc.prctl(abi.PR_SET_NO_NEW_PRIVS, 1)
                libc.set_filter(_denying(nr))
        except (OSError, ValueError) as error:
            os.write(writer, f"the probing child cannot be set up: {error}".encode())
            os._exit(1)
        os.write(writer, f"answer {_call(nr)}".encode())
    finally:
        os._exit(0)


def _prepare(writer: int) -> None:
    """See that this process neither stays for long nor leaves traces when it dies."""
    import _signal

    from shim.host import libc

    def illegal(_number: int, _frame: object) -> None:
        os.write(writer, b"answer SIGILL")
        os._exit(0)

    # force_sig() returns to a process that handles the signal: it does not die of it, so there is
    # no core, no report to a piped core_pattern (which RLIMIT_CORE 0 does not stop) and no audit
    # record of an abnormal end. Should it die all the same, an undumpable process leaves no core.
    libc.prctl(abi.PR_SET_DUMPABLE, 0)
    _signal.signal(_signal.SIGILL, illegal)
    _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGILL, _signal.SIGALRM))
    _signal.alarm(_SECONDS)


def _denying(nr: int) -> bytes:
    """Return a filter that answers ERRNO(77) to ``nr`` of x86-64 and lets all else through."""
    insns = answering(abi.AUDIT_ARCH_X86_64, nr, abi.SECCOMP_RET_ERRNO | _MARK)
    return encode([*insns, (RET_K, 0, 0, abi.SECCOMP_RET_ALLOW)])


def _call(nr: int) -> str:
    import _signal

    from shim.host import libc

    try:
        libc.syscall(nr)
        answer = "0"
    except OSError as error:
        number = error.errno or 0
        answer = errno.errorcode.get(number, str(number))
    # CPython runs the handlers of signals that have come before this function returns; where the
    # answer was SIGILL it does not return.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    return answer


def _signal_name(number: int) -> str:
    import _signal

    for name in ("SIGILL", "SIGSYS", "SIGKILL", "SIGALRM", "SIGSEGV"):
        if getattr(_signal, name) == number:
            return name
    return f"signal {number}"
