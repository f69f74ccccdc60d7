"""The tracer: follow a container's init until it loads its filter, and put the allow in front.

Whatever happens to the tracer, the kernel lets the init go on with its own filter or with the
augmented one, never without one.
"""

import time

from shim import abi
from shim.errors import ShimError
from shim.host.tracee import Tracee
from shim.start.augment import augment
from shim.start.rewrite import Memory, Swap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Log = Callable[..., None]


_LOADERS = (abi.NR_SECCOMP, abi.NR_PRCTL)


def follow(tracee: Tracee, calls: "dict[str, int]", log: "Log") -> None:
    """Run ``tracee`` to the call that loads its filter and let ``calls`` through there.

    ``log(event, **fields)`` writes one audit line or raises OSError; nothing is changed before it
    has. The thread is left stopped, for the caller to detach. ShimError: it could not be done, and
    the filter is as it was or, if it was found changed on reading it back, of unknown content.
    LeftAlone: there was nothing to do.
    """
    started = time.monotonic_ns()
    while True:
        nr, flags, fprog = _next_load(tracee)
        found = time.monotonic_ns()
        memory = Memory(tracee.pid)
        new, facts = augment(memory.program(fprog), calls)
        log("adjusting", **facts)
        swap = Swap(memory, fprog, new, tracee.stack_pointer())
        result = tracee.result()
        swap.undo()
        if result < 0:
            _load_own(tracee, nr)
        elif result == 0 or flags & abi.SECCOMP_FILTER_FLAG_NEW_LISTENER:
            break
        # Else TSYNC met a thread with another filter (seccomp(2)): the runtime has to try again.
    verified, reason = _read_back(tracee, new)
    done = time.monotonic_ns()
    log(
        "adjusted",
        level="info" if verified else "warning" if verified is None else "error",
        **facts,
        verified=verified,
        reason=reason,
        stops=tracee.stops,
        rewrite_ms=round((done - found) / 1e6, 3),
        duration_ms=round((done - started) / 1e6, 3),
    )
    if verified is False:
        raise ShimError(reason)


def _next_load(tracee: Tracee) -> "tuple[int, int, int]":
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
    _next_load(tracee)
    if tracee.result() >= 0:
        raise ShimError("the kernel refused the longer filter and took the container's own")


def _read_back(tracee: Tracee, expected: bytes) -> "tuple[bool | None, str]":
    try:
        installed = tracee.filters()
    except OSError as error:
        return None, f"the installed filter cannot be read: {error.strerror}"
    if installed[:1] == [expected]:
        return True, ""
    return False, "the installed filter is not the one that was handed over"
