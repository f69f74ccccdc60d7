"""docs/new-calls.md: its commands are run, and what it shows is what they print."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from support import containers, need
from support.checkout import CHECKOUT
from support.shown import blocks, pattern


def test_what_is_shown_is_printed(tmp_path: Path) -> None:
    """In order, in one directory: standard error is part of what a command prints."""
    need.kernel(containers.supported(), "the runtimes are asked on x86-64")
    need.program("crun")
    python = shlex.join([sys.executable, "-P", "-m", "shim"])
    start = f'seccomp-shim() {{ PYTHONPATH={CHECKOUT} {python} "$@"; }}'
    sessions = [each for block in blocks("docs/new-calls.md") for each in _commands(block)]
    assert len(sessions) > 6
    for command, output in sessions:
        done = subprocess.run(
            ["bash", "-c", f"{start}\n{command}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert re.fullmatch(pattern(output), done.stdout), f"{command}\n{done.stdout}"


def _commands(block: str) -> list[tuple[str, str]]:
    """Return each command of a session and its output; a here document is part of a command."""
    found: list[tuple[str, str]] = []
    for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = each.partition("\n")
        if "<<'END'" in command:
            body, _, output = output.partition("END\n")
            command = f"{command}\n{body}END\n"
        found.append((command, output))
    return found
