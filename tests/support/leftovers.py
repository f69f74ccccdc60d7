"""What is left behind, on a machine where what other workers have comes and goes meanwhile."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

# Longer than any look of another worker takes; what was forgotten is there for ever.
_SECONDS = 90


def containers(prefix: str) -> set[str]:
    """Return what containers whose names begin with ``prefix`` could leave behind."""
    cgroups = (path for path in _cgroups() if os.path.basename(path).startswith(prefix))
    bundles = Path("/tmp").glob(f"{prefix}*")
    states = Path("/run").glob(f"*c*/{prefix}*")
    return {*cgroups, *map(str, bundles), *map(str, states)}


def remove_cgroups(name: str) -> None:
    """Remove the cgroups called ``name`` that a runtime has left: killed, or as it always does."""
    deadline = time.monotonic() + _SECONDS
    while left := [path for path in _cgroups() if os.path.basename(path) == name]:
        assert time.monotonic() < deadline, left
        for path in left:
            with contextlib.suppress(OSError):  # a process of it is still to die
                os.rmdir(path)
        time.sleep(0.01)


def _cgroups() -> Iterator[str]:
    # What another worker removes meanwhile os.walk passes over; a glob fails.
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        yield from (f"{folder}/{name}" for name in names)


def stays(paths: set[str]) -> set[str]:
    """Return those of the paths that do not go: nobody at work has them any more.

    Directories of control groups are the whole machine's, so what another test is using just now
    is seen as well.
    """
    deadline = time.monotonic() + _SECONDS
    while paths and time.monotonic() < deadline:
        paths = {path for path in paths if os.path.lexists(path)}
        time.sleep(0.1 if paths else 0)
    return paths
