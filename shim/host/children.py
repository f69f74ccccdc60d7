"""A child of ours that answers through a pipe, and is never waited for without a limit."""

from shim import lightos as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = 1


def answer_of(work: "Callable[[int], object]", seconds: float, limit: int) -> bytes:
    """Return what ``work`` writes in a child, to the descriptor that it is given.

    The child ends with ``work``, and at the latest when its time is over. TimeoutError: then.
    OSError: there is no child.
    """
    import select
    import time

    reader, writer = os.pipe()
    try:
        child = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if child == 0:
        try:
            work(writer)
        finally:
            os._exit(127)
    os.close(writer)
    deadline = time.monotonic() + seconds
    output = b""
    try:
        while select.select([reader], [], [], max(0, deadline - time.monotonic()))[0]:
            part = os.read(reader, 65536)
            if not part or len(output) > limit:
                break
            output += part
        else:
            raise TimeoutError
    finally:
        os.close(reader)
        _end(child)
    return output


def _end(child: int) -> None:
    """See that ``child`` is no more: all that it had to say has been said."""
    import time

    try:
        if os.waitpid(child, os.WNOHANG)[0] == 0:
            os.kill(child, 9)
            # One that waits in the kernel, on a dead file system, dies of it only later.
            deadline = time.monotonic() + _SECONDS
            while os.waitpid(child, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
                time.sleep(0.001)
    except (ChildProcessError, ProcessLookupError):
        pass  # SIGCHLD is ignored: the kernel has reaped it
