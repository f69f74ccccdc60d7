"""Somebody at a machine of their own who manages hosts by ``seccomp-shim fleet``."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from support import managed

_SECONDS = 300


class Said(NamedTuple):
    """What a verb printed: its exit status, the hosts' lines by host, everything else."""

    code: int
    lines: dict[str, dict[str, Any]]
    text: str

    def results(self) -> dict[str, str]:
        """Return each host's result."""
        return {host: line["result"] for host, line in self.lines.items()}


class Operator:
    """Knows an inventory, and keeps journals in a directory."""

    def __init__(self, inventory: Path, state: Path) -> None:
        self.inventory = inventory
        self.state = state

    def command(self, verb: str, *words: str) -> list[str]:
        """Return the command line of a verb."""
        where = ["--inventory", str(self.inventory), "--state", str(self.state)]
        return [sys.executable, "-m", "shim", "fleet", verb, *where, *words]

    @property
    def started(self) -> dict[str, Any]:
        """Return how its programs are started: in the example's directory, with its settings."""
        return {"cwd": managed.EXAMPLE, "env": managed.environment()}

    def __call__(self, verb: str, *words: str, code: int = 0) -> Said:
        """Run a verb; an exit status other than ``code`` fails the test."""
        done = self._run(verb, "--json", *words, apart=True)
        told = done.stdout + done.stderr
        assert done.returncode == code, f"{verb} {words}: {done.returncode}\n{told}"
        assert "Traceback" not in told, told
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return Said(code, {line["host"]: line for line in lines}, done.stderr)

    def shown(self, verb: str, *words: str, code: int = 0) -> str:
        """Run a verb as for a person; give all that is shown."""
        done = self._run(verb, *words, apart=False)
        assert done.returncode == code, f"{verb} {words}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def _run(self, verb: str, *words: str, apart: bool) -> "subprocess.CompletedProcess[str]":
        """Run a verb; ``apart``: standard error is not mixed with standard output."""
        return subprocess.run(
            self.command(verb, *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if apart else subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_SECONDS,
            **self.started,
        )

    def report(self) -> dict[str, dict[str, Any]]:
        """Return what the report has of each host."""
        return self("report").lines
