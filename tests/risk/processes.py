"""Live processes with filters of their own."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from shim.host import libc
from support import need


@contextmanager
def filtered(*programs: bytes, then: Callable[[], object] = signal.pause) -> Iterator[int]:
    """Have a process with these filters, loaded in this order, that does nothing."""
    pid = started(programs, then)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def started(
    programs: Iterable[bytes],
    then: Callable[[], object],
    first: Callable[[], object] = lambda: None,
) -> int:
    """Start a process that does ``first``, loads these filters in this order, and does ``then``."""
    need.root()
    need.kernel(os.uname().machine == "x86_64", "the filters are for x86-64")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            first()
            for program in programs:
                libc.set_filter(program)
            os.write(writer, b"1")
            then()
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    return pid
