"""What the tests of the verb patch are given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.patching import BEFORE, Run


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the directory that is the audit log's in what ``shim`` runs."""
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


@pytest.fixture
def shim(tmp_path: Path, log: Path) -> Run:
    """Run the program in ``tmp_path`` as a process of its own, with a log of its own."""

    def run(
        *args: str | Path, stdin: bytes = b"", prepare: str = "true"
    ) -> "subprocess.CompletedProcess[bytes]":
        command = [sys.executable, "-m", "shim", "patch", *map(str, args)]
        if {"-i", "--in-place"} & set(args):
            command += ["--state", str(log / "state")]
        environment = {**os.environ, "XDG_STATE_HOME": str(log), "COLUMNS": "100"}
        if os.geteuid() == 0:
            # root's settings and log are the machine's: let the program see others in their place
            script = (
                "if [ -d /etc/seccomp-shim ]; then mount -t tmpfs none /etc/seccomp-shim; fi && "
                "mount -t tmpfs none /var/log && mkdir /var/log/seccomp-shim && "
                f'mount --bind "$0" /var/log/seccomp-shim && {prepare} && exec "$@"'
            )
            command = ["unshare", "-m", "sh", "-c", script, str(log), *command]
        return subprocess.run(
            command, input=stdin, capture_output=True, check=False, cwd=tmp_path, env=environment
        )

    return run


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Return a Docker profile in a file."""
    path = tmp_path / "p.json"
    path.write_text(BEFORE)
    return path
