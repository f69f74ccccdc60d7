"""A child of ours that answers through a pipe, and is never waited for without a limit."""

from shim import lightos as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_SECONDS = 1


def answer_of(work: "Callable[[int], object]", seconds: float, limit: int) -> bytes:
    """Return what ``work`` writes in a child, to the descriptor that it is given.

    The child ends with ``work``, and at the latest when its time is over. TimeoutError: then.
    OSError: there is no child.
    """
    import time

    deadline = time.monotonic() + seconds
    output = b""
    for part in _parts(work, lambda: deadline - time.monotonic()):
        if len(output) > limit:
            break
        output += part
    return output


def parts_of(work: "Callable[[int], object]", seconds: float) -> "Generator[bytes, None, None]":
    """Yield what ``work`` writes in a child, as ``answer_of``, but as it comes.

    TimeoutError: nothing came for so many seconds. The child ends with the iteration.
    """
    return _parts(work, lambda: seconds)


def _parts(
    work: "Callable[[int], object]", left: "Callable[[], float]"
) -> "Generator[bytes, None, None]":
    import select

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
    try:
        while select.select([reader], [], [], max(0, left()))[0]:
            part = os.read(reader, 65536)
            if not part:
                break
            yield part
        else:
            raise TimeoutError
    finally:
        os.close(reader)
        _end(child)


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
