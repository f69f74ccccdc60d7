"""docs/docker.md: its commands are run, and what it shows is what they print."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import composes
from engines.shimmed import Shimmed, shimmed
from support import image
from support.checkout import CHECKOUT
from support.containers import TEST_SYSCALL

_BLOCK = re.compile(r"^( *)```console\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def sessions() -> list[tuple[str, str]]:
    """Return each command that the document shows, and what it prints."""
    text = (CHECKOUT / "docs/docker.md").read_text()
    found = []
    for indent, block in _BLOCK.findall(text):
        lines = "".join(line.removeprefix(indent) for line in block.splitlines(keepends=True))
        command, _, output = lines.removeprefix("$ ").partition("\n")
        found.append((command, output))
    return found


@pytest.fixture(scope="module")
def shim() -> Iterator[Shimmed]:
    """Start a daemon that has the wrapper, an image by the name that is shown, and compose."""
    with shimmed() as started:
        started.configure()
        started.docker("tag", image.NAME, "debian:12")
        composes.install("trixie", started.docker.folder / "client")
        yield started


@pytest.mark.parametrize(("command", "output"), sessions())
def test_what_is_shown_is_printed(shim: Shimmed, command: str, output: str) -> None:
    """Word for word, but that a test syscall stands in for the call and a digest is long."""
    project = Path(shim.docker.folder, "project")
    project.mkdir(exist_ok=True)
    (project / "compose.yaml").write_text('{"services": {"web": {"image": "debian:12"}}}')
    verb = shlex.join([sys.executable, "-m", "shim"])
    script = f'cd {project.parent}; seccomp-shim() {{ {verb} "$@"; }}; {command}'
    prefix = shim.command()
    enter = prefix[: prefix.index(sys.executable)]
    done = subprocess.run(
        [*enter, "bash", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    printed = done.stdout.replace(f"test-syscall-{TEST_SYSCALL}", "uretprobe")
    printed = re.sub(r"compose-[0-9a-f]{32}", "compose-1234", printed)
    assert printed.replace(str(project), "/tmp/project") == output


def test_the_commands_are_those_that_are_looked_at() -> None:
    """All blocks were found: three of run and create, one of compose."""
    assert [("compose" in command) for command, _ in sessions()] == [False, False, False, True]
