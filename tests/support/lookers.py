"""Somebody else who looks at a process, again and again."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from support.checkout import CHECKOUT

_LOOKER = """
import sys
import time
from shim.host.ptrace import Tracee
print("ready", flush=True)
while True:
    try:
        Tracee(int(sys.argv[1])).detach()
    except OSError:
        pass
    time.sleep(0.0001)
"""


@contextmanager
def looked_at(pid: int) -> Iterator[None]:
    """Have a process seized, stopped and let go all the time, as by scans."""
    words = [sys.executable, "-P", "-c", _LOOKER, str(pid)]
    given = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(words, env=given, stdout=subprocess.PIPE, text=True) as looker:
        try:
            assert looker.stdout is not None
            assert looker.stdout.readline() == "ready\n"
            yield
        finally:
            looker.kill()
