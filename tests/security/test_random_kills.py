"""Whichever part of a start is killed, at whatever moment: nothing of it is left behind.

A draft of config.json and a file by which a hook finds its tracer are removed by the next start.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from security import kills
from support import need
from support.checkout import CHECKOUT
from support.containers import supported

# All ways together: SHIM_KILLS makes them more, SHIM_KILLS_SEED the same as in another run.
STARTS = int(os.environ.get("SHIM_KILLS", "60"))
SWEEP = 2000
_DRAWN = random.randrange(10**6)  # noqa: S311 - the same starts again, no secret
SEED = int(os.environ.get("SHIM_KILLS_SEED", _DRAWN))


def killed(folder: Path, way: str, count: int) -> None:
    """Make ``count`` starts by ``way`` in a PID and mount namespace; print what was killed."""
    need.kernel(supported(), "containers run here as root on x86-64 only")
    real = need.program(way.partition("-")[0])
    words = [sys.executable, "-m", "security.kills", str(folder), way, real, str(count), str(SEED)]
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *words],
        env={**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT}/tests"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {SEED}: {done.stderr}"
    found = json.loads(done.stdout)
    print(f"seed {SEED}, {way}: {count} starts, killed {found['hit']};")
    print(f"{found['drafts']} drafts for the next start to remove; {found['ends']}")
    assert found["wrong"] == []
    assert set(found["hit"]) <= set(kills.WAYS[way])
    assert sum(found["hit"].values()) >= count // 2


@pytest.mark.parametrize("way", kills.WAYS)
def test_random_kills_leave_nothing_behind(tmp_path: Path, way: str) -> None:
    """No process, file, mount, cgroup or held container stays, and ``deny`` lets none by."""
    killed(tmp_path, way, STARTS // len(kills.WAYS))


@pytest.mark.sweep
@pytest.mark.parametrize("way", kills.WAYS)
def test_two_thousand_random_kills_leave_nothing_behind(tmp_path: Path, way: str) -> None:
    """The same, so often that each moment has its turn."""
    killed(tmp_path, way, SWEEP // len(kills.WAYS))
