"""The tracer that waits beside the runtime until the hook calls it.

The wrapper knows before the runtime has started that a filter will have to be injected. So it forks
the tracer at once, which makes its imports meanwhile, and the hook, which is shell
(hooks/seccomp-shim-hook), has no second interpreter to start while the container waits.

They meet by the runtime's process id: the tracer watches that process, and the hook is its child.
A file of that name, in a directory that nobody else may look into, says which process the tracer
is, its random name, and at which of its descriptors it is to be called. The hook believes the
process only if it is of the user that the file names and bears that name. The file is there for as
long as somebody may come: until the hook has called, or the runtime or the wrapper has ended. A
tracer that is not there, or does not answer as it should, is no harm: the hook then does all by
itself.
"""

from shim import lightos as os
from shim.errors import ShimError
from shim.host import processes
from shim.start.inject.tracer import HELD, SEIZED, Tracer, give_up_after, trace
from shim.start.session import Start

_STATE_SECONDS = 10
# Runtimes call their hooks within milliseconds, others' hooks before ours within seconds.
_WAIT_SECONDS = 600


class Waiting:
    """A tracer in waiting. It ends with this process, unless it is engaged."""

    __slots__ = ("tracer",)

    def __init__(self, start: Start, calls: "dict[str, int]", runtime: int, directory: int) -> None:
        """Fork it off; our parent ``runtime`` is going to be the real runtime.

        ``directory`` is open, and where the hook looks for it. OSError: it cannot be made.
        """
        watched = os.pidfd_open(runtime)
        if os.getppid() != runtime:
            raise ProcessLookupError("the runtime has ended")

        def work(go: int, ready: int, name: str) -> int:
            return _wait(start, calls, runtime, directory, (watched, go, ready), name)

        self.tracer = Tracer(work, watched, directory)
        os.close(watched)

    def engage(self) -> bool:
        """Have it wait for as long as the runtime may call its hook; False: it has ended."""
        there = os.read(self.tracer.answer, 1) != b""
        try:
            os.write(self.tracer.order, b"g")
        except BrokenPipeError:
            return False
        return there


def _wait(
    start: Start,
    calls: "dict[str, int]",
    runtime: int,
    directory: int,
    ends: "tuple[int, int, int]",
    name: str,
) -> int:
    """Be the tracer; ``ends`` are the runtime's pidfd and our ends of the wrapper's pipes."""
    watched, go, ready = ends
    call, write_call = os.pipe()
    read_answer, answer = os.pipe()  # the other ends are for the hook to open
    there = f"{os.getpid()} {name} {os.geteuid()} {write_call} {read_answer}\n"
    _sweep(directory)
    _put(directory, str(runtime), there)
    try:
        os.write(ready, b"r")
        os.close(ready)
        # All that is to be imported, while the runtime starts.
        from shim.host import ptrace  # noqa: F401
        from shim.start.inject import augment, follow  # noqa: F401

        called = _is_called(call, watched, go)
    finally:
        os.unlink(str(runtime), dir_fd=directory)
    return _serve(start, calls, runtime, int(os.read(call, 32)), answer) if called else 1


def _put(directory: int, name: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    os.write(fd, text.encode())
    os.close(fd)


def _sweep(directory: int) -> None:
    """Remove what tracers have left that were killed: of runtimes that have ended."""
    for name in os.listdir(directory):
        if not os.path.exists(f"/proc/{name}"):
            try:  # noqa: SIM105 - contextlib is an import that every start would pay for
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                pass  # another start was quicker


def _is_called(call: int, watched: int, go: int) -> bool:
    """Wait until the hook calls (True), or the runtime has ended, or a wrapper that did not say go.

    It may call before we have read that word.
    """
    import select

    poll = select.poll()
    for fd in (call, watched, go):
        poll.register(fd, select.POLLIN)
    while ready := poll.poll(_WAIT_SECONDS * 1000):
        found = [fd for fd, _ in ready]
        if call in found:
            return True
        if watched in found or not os.read(go, 1):
            return False
        poll.unregister(go)
    return False


def _serve(start: Start, calls: "dict[str, int]", runtime: int, hook: int, answer: int) -> int:
    """Follow the init of which process ``hook`` was told; its descriptor 3 is what it was told."""

    def say(message: str) -> None:
        if message in (SEIZED, HELD):
            os.write(answer, b"0\n")
        else:
            code = start.fail(ShimError(message))
            os.write(answer, f"{code} {' '.join(message.split())}\n".encode())

    try:
        caller = processes.pin(hook)
        if processes.status(caller, ("PPid",)) != {"PPid": [str(runtime)]}:
            raise ProcessLookupError
        os.dup2(os.open("fd/3", os.O_RDONLY | os.O_NOCTTY, dir_fd=caller), 0)
    except OSError:
        os.write(answer, b"2\n")  # its standard input is as it was: it goes on by itself
        return 1
    give_up_after(_STATE_SECONDS)
    try:
        start.read_state()
        start.pin()
    except ShimError as error:
        say(str(error))
        return 1
    return trace(start, calls, say)
