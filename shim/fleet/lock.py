"""One process at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from shim.errors import ShimError


@contextlib.contextmanager
def held(path: str, busy: ShimError) -> Iterator[None]:
    """Hold the lock that is the file ``path``; raise ``busy`` at once where another has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield
    finally:
        os.close(fd)
