"""The tracer: follow a container's init until it loads its filter, and put the allow in front.

Whatever happens to the tracer, the kernel lets the init go on with its own filter or with the
augmented one, never without one.
"""

import time

from shim import abi
from shim.bpf import program as bpf
from shim.errors import ShimError
from shim.host.ptrace import EndedError, Tracee
from shim.start.inject.augment import LETS, AlreadyLet, augment, augmented, verdict_before
from shim.start.inject.memory import Memory, Swap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Log = Callable[..., None]


_LOADERS = (abi.NR_SECCOMP, abi.NR_PRCTL)
# From the filter to the program; a container that was created may wait for its start for hours.
_EXEC_SECONDS = 5
_BY_DEFAULT = "another filter in force denies it by its default"


def follow(
    tracee: Tracee,
    calls: "dict[str, int]",
    log: "Log",
    *,
    raw_bpf: bool = False,
    refused: "dict[str, int] | None" = None,
) -> None:
    """Run ``tracee`` to the call that loads its filter and let ``calls`` through there.

    ``refused`` get ENOSYS in place of EPERM (``shim.start.inject.augment``).

    ``log(event, **fields)`` writes one audit line or raises OSError; nothing is changed before it
    has. With ``raw_bpf`` a program that has our allow in front already is logged as an adjustment:
    whoever has put it there could not know that it would be loaded. The thread is left stopped, for
    the caller to detach, or has ended. ShimError: it could not be done, and the filter is as it
    was; or some filter in force denies ``calls`` after all. LeftAlone: there was nothing to do.
    """
    started = time.monotonic_ns()
    while True:
        nr, flags, fprog = next_load(tracee)
        found = time.monotonic_ns()
        memory = Memory(tracee.pid)
        old = memory.program(fprog)
        try:
            new, facts = augment(old, calls, refused)
        except AlreadyLet as reason:
            tracee.result()
            verified, why = _installed_verdict(tracee, old, calls)
            if verified is False:
                raise ShimError(why) from None
            if raw_bpf and (facts := augmented(old, calls, refused)):
                log("adjusted", mechanism="raw-bpf", **facts, verified=verified, reason=why)
                return
            raise reason from None
        log("adjusting", **facts)
        swap = Swap(memory, fprog, new, tracee.stack_pointer())
        result = tracee.result()
        swap.undo()
        if result < 0:
            _load_own(tracee, nr)
        elif result == 0 or flags & abi.SECCOMP_FILTER_FLAG_NEW_LISTENER:
            break
        # Else TSYNC met a thread with another filter (seccomp(2)): the runtime has to try again.
    done = time.monotonic_ns()
    changed = str(facts.get("syscall")).split(",")
    allowed = {name: nr for name, nr in calls.items() if name in changed}
    verified, why = _installed_verdict(tracee, new, allowed)
    log(
        "adjusted",
        level="error" if verified is False else "info",
        **facts,
        verified=verified,
        reason=why,
        stops=tracee.stops,
        rewrite_ms=round((done - found) / 1e6, 3),
        duration_ms=round((done - started) / 1e6, 3),
    )
    if verified is False:
        raise ShimError(why)


def next_load(tracee: Tracee) -> "tuple[int, int, int]":
    """Run to the entry of a call that loads a filter: its number, flags, sock_fprog address."""
    while True:
        arch, nr, args = tracee.next_call(_LOADERS)
        if nr == abi.NR_SECCOMP and args[0] == abi.SECCOMP_SET_MODE_FILTER:
            flags = args[1]
        elif nr == abi.NR_PRCTL and args[:2] == (abi.PR_SET_SECCOMP, abi.SECCOMP_MODE_FILTER):
            flags = 0
        else:
            continue
        # libseccomp passes NULL to learn which flags the kernel knows.
        if arch == abi.AUDIT_ARCH_X86_64 and args[2]:
            return nr, flags, args[2]


def _load_own(tracee: Tracee, nr: int) -> None:
    """Let the thread make its failed call again with its own program.

    Returns if the kernel refuses that one too; ShimError if it takes it, since then the longer
    program alone was at fault (such as 32768 instructions in all filters, kernel/seccomp.c).
    """
    tracee.again(nr)
    next_load(tracee)
    if tracee.result() >= 0:
        raise ShimError("the kernel refused the longer filter and took the container's own")


def _installed_verdict(
    tracee: Tracee, ours: bytes, calls: "dict[str, int]"
) -> "tuple[bool | None, str]":
    """See what all filters in force make of ``calls`` when the program begins, and why.

    What the init loads in between is not followed, it would cost hundreds of stops: this one tells.
    """
    import _signal

    _signal.alarm(0)  # the time for the filter to come; what we wait for now has its own
    try:
        begun = tracee.to_exec(_EXEC_SECONDS)
        installed = tracee.filters()
    except (EndedError, ProcessLookupError):
        return None, "the process ended before its program began"
    except TimeoutError:
        raise ShimError("the process cannot be stopped to see what filters it has") from None
    except OSError as error:
        return None, f"the installed filters cannot be read: {error.strerror}"
    if ours not in installed:
        return False, "the installed filter is not the one that was handed over"
    others = [bpf.decode(program) for program in installed if program != ours]
    reasons = {(name, _denial(other, nr)) for name, nr in calls.items() for other in others}
    told = "; ".join(sorted(f"{name}: {reason}" for name, reason in reasons if reason))
    if any(reason == _BY_DEFAULT for _, reason in reasons):
        return False, told
    if not begun and not told:
        told = f"its program has not begun within {_EXEC_SECONDS} seconds: others may come later"
    return None if told else True, told


def _denial(program: "bpf.Insns", nr: int) -> str:
    """Say how one more filter denies a call; empty: it lets it through."""
    reason = verdict_before(program, nr)[1]
    return "" if reason == LETS else f"of another filter: {reason}" if reason else _BY_DEFAULT
