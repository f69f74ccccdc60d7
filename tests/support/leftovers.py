"""What is left behind, on a machine where what other workers have comes and goes meanwhile."""

import os
import time
from pathlib import Path

# Longer than any look of another worker takes; what was forgotten is there for ever.
_SECONDS = 90


def containers(prefix: str) -> set[str]:
    """Return what containers whose names begin with ``prefix`` could leave behind."""
    # A cgroup that another worker removes meanwhile os.walk passes over; a glob fails.
    cgroups = [
        f"{folder}/{name}" for folder, names, _ in os.walk("/sys/fs/cgroup") for name in names
    ]
    bundles = Path("/tmp").glob(f"{prefix}*")
    states = Path("/run").glob(f"*c*/{prefix}*")
    ours = (path for path in cgroups if os.path.basename(path).startswith(prefix))
    return {*ours, *map(str, bundles), *map(str, states)}


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
