"""Leave our caller behind: nobody waits for us, and we hold nothing that anybody waits for."""

import os

from shim.errors import ShimError
from shim.host.processes import TRACER


def leave(*keep: int) -> str:
    """Go into a session of our own, without any of our open files but ``keep``; return our name.

    A runtime or an engine waits for the end of file on what it gave us, and a terminal's signals or
    the end of a hook's process group must not reach who works on. The name is one that no process
    had before: by it a tracer of ours is known.
    """
    name = f"{TRACER}{os.urandom(4).hex()}"
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


def give_up_after(seconds: int) -> None:
    """Have ShimError raised here after ``seconds``; 0 takes that back."""
    import _signal

    def too_late(_number: int, _frame: object) -> None:
        raise ShimError(f"no filter was loaded within {seconds} seconds")

    _signal.signal(_signal.SIGALRM, too_late)
    _signal.alarm(seconds)
