"""``seccomp-shim docker`` beside a real dockerd, in the view of the host that the daemon has."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.capture import Capture
from shim.engines.registration import hookfile
from support import auditlog, engines, image
from support.checkout import CHECKOUT
from support.containers import TEST_SYSCALL

CALL = [image.CALLER, str(TEST_SYSCALL)]
SETTINGS = "/etc/seccomp-shim/config.yaml"
RUNTIME = "seccomp-shim"
# No bridge is there, and no iptables.
ALONE = ["--network", "none"]
_SECONDS = 120  # none of it takes as long


@dataclass
class Shimmed:
    """The daemon, a runtime that captures what it is handed, and the verb."""

    docker: engines.Docker
    capture: Capture
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def log_path(self) -> Path:
        """Where the settings have everything logged."""
        return self.docker.folder / "audit.jsonl"

    def configure(
        self, *, wrapper: bool = True, default: str = "runc", test_syscall: bool = True, **more: str
    ) -> None:
        """Set what the daemon knows, and the settings: a test syscall or none, and ``more``."""
        self.write_settings(test_syscall=test_syscall, **more)
        runtimes: dict[str, Any] = {"capture": {"path": str(self.capture.program)}}
        if wrapper:
            runtimes[RUNTIME] = {"path": f"{self.docker.folder}/bin/seccomp-shim-runtime"}
        self.docker.configure({"runtimes": runtimes, "default-runtime": default})
        self.docker.reload()

    def write_settings(self, *, test_syscall: bool = True, **more: str) -> None:
        """Write the settings, and begin a new log."""
        document = {
            "log": str(self.log_path),
            **({"test_syscall": TEST_SYSCALL} if test_syscall else {}),
            **more,
        }
        text = json.dumps(document)
        self.docker.host.run(f"mkdir -p /etc/seccomp-shim; echo '{text}' >{SETTINGS}")
        self.log_path.unlink(missing_ok=True)

    def command(self, *words: str, folder: str | Path = "/", **environment: str) -> list[str]:
        """Return the command line of the verb, run in ``directory``."""
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(CHECKOUT)}
        variables |= {**self.environment, **environment}
        lines = [f"{name}={value}" for name, value in variables.items()]
        verb = [sys.executable, "-m", "shim", "docker", *words]
        return [*self.docker.host.enter, "env", "-i", f"--chdir={folder}", *lines, *verb]

    def __call__(
        self,
        *words: str,
        code: int = 0,
        folder: str | Path = "/",
        environment: dict[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run the verb; an exit status other than ``code`` fails the test."""
        done = subprocess.run(
            self.command(*words, folder=folder, **environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def log(self) -> list[dict[str, Any]]:
        """Return the log's lines."""
        return auditlog.lines(self.log_path)


@contextlib.contextmanager
def shimmed() -> Iterator[Shimmed]:
    """Start a dockerd for the verb."""
    with engines.dockerd() as docker:
        (docker.folder / "bin").mkdir()
        hookfile.render_all(docker.folder / "bin")
        environment = {
            "DOCKER_HOST": f"unix://{docker.socket}",
            "DOCKER_CONFIG": f"{docker.folder}/client",
            "HOME": str(docker.folder),
        }
        yield Shimmed(docker, Capture(docker.folder, libseccomp="2.6.0"), environment)


def child_of(pid: int) -> int:
    """Return the only child of a process."""
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def said(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the one line that was said, without who said it; empty: nothing was."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("seccomp-shim: ")]
    assert len(lines) <= 1, done.stderr
    return lines[0].removeprefix("seccomp-shim: ") if lines else ""
