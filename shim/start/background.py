"""Leave our caller behind: nobody waits for us, and we hold nothing that anybody waits for."""

import os

from shim.errors import ShimError


def leave(*keep: int) -> None:
    """Go into a session of our own, without any of our open files but ``keep``.

    A runtime or an engine waits for the end of file on what it gave us, and a terminal's signals or
    the end of a hook's process group must not reach who works on.
    """
    os.setsid()
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    low = 3
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def give_up_after(seconds: int) -> None:
    """Have ShimError raised here after ``seconds``; 0 takes that back."""
    import _signal

    def too_late(_number: int, _frame: object) -> None:
        raise ShimError(f"no filter was loaded within {seconds} seconds")

    _signal.signal(_signal.SIGALRM, too_late)
    _signal.alarm(seconds)
