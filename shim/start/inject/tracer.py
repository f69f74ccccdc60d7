"""The tracer: a process beside us that holds another one until that has loaded its filter.

Its caller does not wait for its end, and it holds nothing that anybody waits for. It is forked off
before it is sure that there is work for it, so that what it imports costs the container nothing.
"""

from shim import abi
from shim import lightos as os
from shim.errors import LeftAlone, ShimError
from shim.host import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from shim.host.ptrace import Tracee
    from shim.start.session import Start

    # Is given where its orders come from, where to answer, and its own name; returns its status.
    Work = Callable[[int, int, str], int]

SEIZED, HELD = "seized", "held"
_SEIZE_SECONDS = 10
FOLLOW_SECONDS = 120


class Tracer:
    """One that is forked off: it has its orders by one pipe, and answers by another.

    Without an order it ends when we do: nobody holds the other end then.
    """

    __slots__ = ("answer", "order", "pid")

    def __init__(self, work: "Work", *keep: int, orphan: bool = False) -> None:
        """Have it do ``work``, with no other of our open files than ``keep``.

        An ``orphan`` is init's child, not ours. OSError, ShimError: it cannot be made.
        """
        self.answer, answer = os.pipe()
        order, self.order = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _run_child(work, order, answer, keep, orphan)
        os.close(order)
        os.close(answer)
        if orphan:
            try:  # noqa: SIM105 - contextlib is an import that every exec would pay for
                os.waitpid(self.pid, 0)
            except ChildProcessError:
                pass  # our caller ignores SIGCHLD, and so do we
            self.pid = int.from_bytes(self._said(4), "little")
            if not self.pid:
                raise ShimError("the tracer ended, or did not answer")

    def seize(self, order: bytes) -> None:
        """Hand the order over and return once what it names is held; ShimError if it is not."""
        os.write(self.order, order)
        os.close(self.order)
        answer = self._said(4096).decode()
        # A tracer that wants to answer later finds nobody, and ends.
        os.close(self.answer)
        if answer not in (SEIZED, HELD):
            raise ShimError(answer or "the tracer did not answer")

    def _said(self, size: int) -> bytes:
        """Return what the tracer answers; nothing if it has ended, or takes too long."""
        import select

        ready, _, _ = select.select([self.answer], [], [], _SEIZE_SECONDS)
        return os.read(self.answer, size) if ready else b""


def _run_child(
    work: "Work", order: int, answer: int, keep: "tuple[int, ...]", orphan: bool
) -> "NoReturn":
    """Be the tracer, or the child of a moment that leaves it to init, and end this process."""
    code = 1
    try:
        if orphan:
            if os.fork():
                os._exit(0)
            # It says so itself: who forked it may be killed before it could.
            os.write(answer, os.getpid().to_bytes(4, "little"))
        code = work(order, answer, _leave(order, answer, *keep))
    finally:
        os._exit(code)


def _leave(*keep: int) -> str:
    """Go into a session of our own, without any of our open files but ``keep``; return our name.

    A runtime or an engine waits for the end of file on what it gave us, and a terminal's signals or
    the end of a hook's process group must not reach who works on. The name is one that no process
    had before: by it a tracer of ours is known.
    """
    name = f"{processes.TRACER}{os.urandom(4).hex()}"
    with open("/proc/self/comm", "w", encoding="utf-8") as comm:
        comm.write(name)
    os.setsid()
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    low = 3
    for fd in sorted(fd for fd in keep if fd >= 0):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
    return name


def give_up_after(seconds: int, reason: str = "no filter was loaded within {} seconds") -> None:
    """Have ShimError with ``reason`` raised here after ``seconds``; 0 is never."""
    import _signal

    def too_late(_number: int, _frame: object) -> None:
        raise ShimError(reason.format(seconds))

    _signal.signal(_signal.SIGALRM, too_late)
    _signal.alarm(seconds)


def let_go(tracee: "Tracee") -> None:
    """Let the thread go on, untraced, if it is there and stopped."""
    try:  # noqa: SIM105 - contextlib is an import that every container would pay for
        tracee.detach()
    except OSError:
        pass  # running, or gone: nothing holds it


def _seized(start: "Start", options: int) -> "Tracee":
    """Seize the init, which a scan may look at just now if it has an outer filter.

    PermissionError: a tracer of ours has it already, another one keeps it, or we may not.
    """
    from shim.host.ptrace import START_SECONDS, Tracee

    try:
        return Tracee(start.pid, options)
    except PermissionError:
        if processes.held_by_us(start.pinned):
            raise
    return Tracee(start.pid, options, START_SECONDS)


def trace(
    start: "Start",
    calls: "dict[str, int]",
    answer: "Callable[[str], None]",
    *,
    raw_bpf: bool = False,
) -> int:
    """Follow the init until its filter is loaded and ``calls`` are let through; return a status.

    With ``raw_bpf`` that may be a program of the annotation, with our allow in front.
    ``answer`` is called once: with SEIZED as soon as the init is held, with HELD where another
    tracer of ours holds it, as at the second of two stages, or with why it is not held.
    """
    from shim.host.ptrace import EndedError

    # A frozen one, one in vfork(): the runtime waits for our answer.
    give_up_after(_SEIZE_SECONDS, "it does not stop within {} seconds")
    try:
        fate = abi.PTRACE_O_EXITKILL if start.deny else 0
        tracee = _seized(start, abi.PTRACE_O_TRACEEXEC | fate)
        if not processes.is_there(start.pinned):
            tracee.detach()  # it has ended in between, and its number is another's
            raise ShimError("it has ended")
    except (OSError, ShimError) as error:
        give_up_after(0)
        held = processes.held_by_us(start.pinned)
        answer(HELD if held else f"cannot trace the container's init: {error}")
        return 1 - held
    end = "and is killed" if start.deny else "and is let go as it is"
    give_up_after(
        FOLLOW_SECONDS, f"the container's init loaded no filter within {{}} seconds, {end}"
    )
    try:
        answer(SEIZED)
    except OSError:
        return 1  # nobody waits any more; the init goes on as we end, or ends with us (deny)
    # From here on the runtime goes on beside us: what is imported now costs the container nothing.
    from shim.start.inject.follow import follow

    try:
        follow(tracee, calls, start.log, raw_bpf=raw_bpf, refused=start.refused)
    except (EndedError, ProcessLookupError):
        # A start that fails by itself (no such program, another hook) is no error of ours. ESRCH is
        # what a request gets whose stopped thread was killed (ptrace(2)).
        start.log("left-alone", reason="the process ended before it loaded a filter")
        return 0
    except LeftAlone as reason:
        start.log("left-alone", reason=str(reason))
    except BaseException as error:
        if not start.deny:
            let_go(tracee)  # before anything else: the container waits
        # Where the start is refused the init ends with this process (PTRACE_O_EXITKILL).
        return start.fail(error if isinstance(error, Exception) else ShimError(repr(error)))
    let_go(tracee)
    start.settle()
    return 0
