"""Files that the docker client is going to read, too: also where what is read from them is gone.

A shell's ``<(command)`` is the path of a descriptor of ours, /dev/fd/63, and that one a pipe. The
client inherits the descriptor, so what was read is put back under its number.
"""

import os
import re
import select
import stat
import time

from shim import files
from shim.engines.docker.passthrough import SpentError
from shim.errors import ShimError

_OURS = re.compile(r"/dev/fd/(\d+)|/proc/(?:thread-)?self/fd/(\d+)|/dev/stdin")
_SECONDS = 20


def read(path: str, limit: int) -> bytes:
    """Return ``limit`` + 1 bytes of a file, or all of a pipe that is a descriptor of ours.

    ShimError, OSError: there is no reading it. SpentError: nor is there for the client any more.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        return files.read(path, limit)
    descriptor = _OURS.fullmatch(path)
    if not (descriptor and stat.S_ISFIFO(mode)):
        raise ShimError("is no regular file: what is read from it once is gone", subject=path)
    data = _all(path, limit)
    _put_back(int(descriptor[1] or descriptor[2] or 0), data)
    return data


def _all(path: str, limit: int) -> bytes:
    """Read a pipe to its end, in limited time."""
    deadline = time.monotonic() + _SECONDS
    data = b""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while len(data) <= limit:
            left = max(0.0, deadline - time.monotonic())
            if not poll.poll(left * 1000):
                late = f"had not ended after {_SECONDS} seconds"
                raise SpentError(late, subject=path) if data else ShimError(late, subject=path)
            try:
                part = os.read(fd, 1 << 16)
            except BlockingIOError:  # another reader was faster
                continue
            if not part:
                return data
            data += part
    finally:
        os.close(fd)
    raise SpentError(f"has more than {limit >> 20} MiB", subject=path)


def _put_back(number: int, data: bytes) -> None:
    """Let descriptor ``number`` be at the end of a file of ``data``; its path opens it anew."""
    fd = os.memfd_create("profile")
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.dup2(fd, number)  # which makes it one to be inherited
    os.close(fd)
