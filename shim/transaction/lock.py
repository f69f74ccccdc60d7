"""One process at a time."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from shim.errors import ShimError


@contextlib.contextmanager
def held(path: str, busy: ShimError, seconds: float = 0) -> Iterator[None]:
    """Hold the lock that is the file ``path``; raise ``busy`` where another has it for longer."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    try:
        while not _locked(fd):
            if time.monotonic() >= deadline:
                raise busy
            time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
