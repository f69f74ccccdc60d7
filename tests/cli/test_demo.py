"""The demo, as a user runs it."""

import json
import os
import subprocess
import sys

import pytest

from support import need
from support.containers import real, supported
from support.leftovers import containers, stays

DEMO = [sys.executable, "-m", "shim", "demo"]


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_the_demo_shows_denied_and_then_allowed(name: str) -> None:
    """With each runtime: EPERM before, an answer of the kernel after, and a proof of one change."""
    runtime = real(name)
    before = containers("seccomp-shim-demo-")
    done = subprocess.run(
        [*DEMO, "--runtime", runtime], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    rows = {line[:26].strip(): line[26:].split() for line in lines}
    (called,) = (rows[key] for key in rows if key.startswith("calling"))
    assert called[0] == "EPERM"
    assert called[1] in {"ENOSYS", "SIGILL:"}
    changes = [line for line in lines if " -> " in line and not line.lstrip().startswith("{")]
    assert len(changes) == 1
    assert changes[0].endswith("ERRNO(1) -> ALLOW")
    assert json.loads(lines[-1])["verified"] is True
    assert not stays(containers("seccomp-shim-demo-") - before)


def test_an_ordinary_user_is_told_to_become_root() -> None:
    """Without root there is one clear line and exit status 2."""
    need.root()
    # The tree of a checkout may be closed to other users; the decision needs nothing of it.
    code = "import os; os.setuid(65534); import sys; from shim.cli import main; sys.exit(main())"
    imported = "import shim.cli.demo, shim.engines.demonstration, shim.cli.patch, shim.cli.verify, "
    imported += "shim.cli.exec, shim.cli.probe, shim.cli.config;"
    done = subprocess.run(
        [sys.executable, "-c", imported + code, "demo"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 2
    assert done.stderr == (
        "seccomp-shim demo: only root can run containers here (sudo seccomp-shim demo)\n"
    )


def test_a_runtime_that_is_not_there_is_one_line() -> None:
    """A wrong path gives one line that names it, and exit status 2."""
    need.kernel(supported(), "containers run here as root on x86-64 only")
    done = subprocess.run(
        [*DEMO, "--runtime", "/nowhere/runc"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "/nowhere/runc" in done.stderr
    assert "Traceback" not in done.stderr
