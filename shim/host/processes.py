"""A process that is meant and no other, held by its folder in /proc in place of its number.

A number is given to the next process as soon as its owner has been waited for; what is reached by
an open folder of /proc is that process or nothing (ESRCH), and pidfd_send_signal(2) takes such a
folder for a pidfd. The folder has to be opened while somebody is sure to keep the process from
being reaped: a runtime whose hook we are, a tracer, a parent.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

# So that the hook of a second stage, and whoever looks, knows a tracer of ours.
TRACER = "shim-"


def pin(pid: int) -> int:
    """Return a descriptor that stands for process ``pid``, -1 if there is none."""
    try:
        return os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1


def status(pinned: int, keys: "Container[str]") -> "dict[str, list[str]]":
    """Return the fields ``keys`` of /proc/PID/status; none of a process that has been reaped."""
    try:
        fd = os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=pinned)
    except OSError:
        return {}
    try:
        with open(fd, encoding="utf-8", errors="replace") as file:
            fields = (line.partition(":") for line in file)
            return {name: value.split() for name, _, value in fields if name in keys}
    except OSError:
        return {}


def is_there(pinned: int) -> bool:
    """Tell whether the process has not been reaped: until then its number is its own."""
    return bool(status(pinned, ("Pid",)))


def kill(pinned: int) -> bool:
    """End the process; False where that cannot be done to it alone (before Linux 5.1)."""
    import _signal
    import errno

    try:
        _signal.pidfd_send_signal(pinned, _signal.SIGKILL)
    except OSError as error:
        return error.errno == errno.ESRCH  # it has ended already
    return True


def tell(pinned: int, message: str) -> None:
    """Write ``message`` to the standard error of the process: our own may be closed by now."""
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK
        fd = os.open("fd/2", flags, dir_fd=pinned)
        os.write(fd, f"seccomp-shim: {message}\n".encode())
        os.close(fd)
    except OSError:
        pass  # the log has it


def held_by_us(pinned: int) -> bool:
    """Tell whether another tracer of ours holds the process: of our name, the user that we are."""
    tracer = status(pinned, ("TracerPid",)).get("TracerPid", ["0"])[0]
    if tracer in ("0", str(os.getpid())):
        return False
    holder = pin(int(tracer))
    found = status(holder, ("Name", "Uid"))
    if holder >= 0:
        os.close(holder)
    name, users = found.get("Name", [""])[0], set(found.get("Uid", ()))
    return name.startswith(TRACER) and users == {str(os.geteuid())}
