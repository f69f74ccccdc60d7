"""Regular files read up to a limit; ``shim.atomic`` writes them.

The container start path imports this module: it imports nothing but the calls of the kernel.
"""

import _stat as stat
import errno

from shim import lightos as os


def read(path: str, limit: int) -> bytes:
    """Return the first ``limit`` + 1 bytes: enough to see that a file is too large."""
    with open(path, "rb") as file:
        return file.read(limit + 1)


def open_regular(path: str, flags: int = os.O_RDONLY, *, dir_fd: "int | None" = None) -> int:
    """Open a regular file; OSError if it is anything else: that could keep us waiting, or worse.

    Nothing else is opened for good, and the opening itself waits for nobody: neither for who opens
    a FIFO's other end nor for a device. A file that is made has mode 0640.
    """
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o640, dir_fd=dir_fd)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "is no regular file", path)


def read_regular(path: str, limit: int, flags: int = 0, *, dir_fd: "int | None" = None) -> bytes:
    """Read the whole of a regular file; OSError if it is none, or has more than ``limit`` bytes."""
    fd = open_regular(path, flags, dir_fd=dir_fd)
    with open(fd, "rb", buffering=0) as file:
        data = read_up_to(file.fileno(), limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"has more than {limit >> 10} KiB", path)
    return data


def read_up_to(fd: int, size: int) -> bytes:
    """Read ``size`` bytes, or all that there are."""
    data = os.read(fd, min(size, os.fstat(fd).st_size + 1))
    while len(data) < size and (part := os.read(fd, min(size - len(data), 1 << 16))):
        data += part
    return data
