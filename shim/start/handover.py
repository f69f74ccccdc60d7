"""The tracer that waits beside the runtime until the hook calls it.

The wrapper knows before the runtime has started that a filter will have to be injected. So it forks
the tracer at once, which makes its imports meanwhile, and enters a hook that is ten lines of shell
(hooks/seccomp-shim-handover): no second interpreter has to start while the container waits.

The hook finds the tracer by its process id and knows it by a name that nobody can guess, and the
two talk through pipes of the tracer's, opened by way of /proc: nothing of it lies in a folder, and
nothing is left when either of them dies. A tracer that is not there, or does not answer as it
should, is no harm: the hook then becomes the one that does all by itself.
"""

import os

from shim.errors import ShimError
from shim.start.background import give_up_after, leave
from shim.start.hook import Start, trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_STATE_SECONDS = 10


class Tracer:
    """A tracer in waiting; ``arguments`` are what the hook is to be called with."""

    __slots__ = ("arguments", "pid")

    def __init__(self, start: Start, calls: "dict[str, int]") -> None:
        """Fork it off. It ends with the real runtime, which our parent becomes, if nobody calls.

        OSError: it cannot be made.
        """
        name = f"shim-{os.urandom(4).hex()}"
        runtime = os.pidfd_open(os.getppid())
        pipes = (*os.pipe(), *os.pipe())
        self.pid = os.fork()
        if self.pid == 0:
            _become_tracer(start, calls, name, runtime, pipes)
        for fd in (runtime, *pipes):
            os.close(fd)
        self.arguments = [str(self.pid), name, str(pipes[1]), str(pipes[2])]

    def dismiss(self) -> None:
        """End it: it is not going to be called."""
        os.kill(self.pid, 9)


def _become_tracer(
    start: Start,
    calls: "dict[str, int]",
    name: str,
    runtime: int,
    pipes: "tuple[int, int, int, int]",
) -> "NoReturn":
    code = 1
    try:
        with open("/proc/self/comm", "w", encoding="utf-8") as comm:
            comm.write(name)
        leave(runtime, *pipes)
        call, _, _, answer = pipes  # the others are for the hook to open
        # All that is to be imported, while the runtime starts.
        from shim.host import tracee  # noqa: F401
        from shim.start import augment, follow  # noqa: F401

        if _is_called(call, runtime):
            code = _serve(start, calls, int(os.read(call, 32)), answer)
    finally:
        os._exit(code)


def _is_called(call: int, runtime: int) -> bool:
    """Wait until the hook calls or the runtime ends."""
    import select

    poll = select.poll()
    for fd in (call, runtime):
        poll.register(fd, select.POLLIN)
    return any(fd == call for fd, _ in poll.poll())


def _serve(start: Start, calls: "dict[str, int]", hook: int, answer: int) -> int:
    """Follow the init of which process ``hook`` was told; its descriptor 3 is what it was told."""

    def say(message: str) -> None:
        if message == "seized":
            os.write(answer, b"0\n")
        else:
            code = start.fail(ShimError(message))
            os.write(answer, f"{code} {' '.join(message.split())}\n".encode())

    try:
        os.dup2(os.open(f"/proc/{hook}/fd/3", os.O_RDONLY | os.O_NOCTTY), 0)
    except OSError:
        os.write(answer, b"2\n")  # its standard input is as it was: it goes on by itself
        return 1
    give_up_after(_STATE_SECONDS)
    try:
        start.read_state()
    except ShimError as error:
        say(str(error))
        return 1
    return trace(start, calls, say)
