"""Leave our caller behind: nobody waits for us, and we hold nothing that anybody waits for."""

import os


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
