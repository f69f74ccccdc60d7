"""README.md and pages of docs/: their commands are run, and print what is shown.

Each ``console`` block is one shell session at the checkout's top, on a throwaway view of this host.
A line ``$ command`` is run; what follows up to the next one is its output, standard error included.
In the shown output a number stands for any number, blanks for any blanks, and ``...`` for any text,
several lines of it where it is a line of its own. ``./tests/run`` only collects its tests here.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.host.probe import probe
from support import need
from support.checkout import CHECKOUT
from support.host import Host, throwaway
from support.shown import blocks, pattern

_MARK = "=== next command"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Yield a view of this host in which the README's commands may do what they do."""
    with throwaway(tmp_path_factory.mktemp("readme")) as view:
        if not shutil.which("sudo"):  # root's own machine may lack it
            view.run("printf '#!/bin/sh\\nexec \"$@\"\\n' >/usr/local/bin/sudo")
            view.run("chmod 755 /usr/local/bin/sudo")
        yield view


def test_shown_output_is_matched_strictly() -> None:
    """Only the documented wildcards stand for something else."""
    shown = "a 12 b...c\n...\nend\n"
    assert re.fullmatch(pattern(shown), "a   7.5 bxyzc\n1\n2\nend\n")
    assert re.fullmatch(pattern(shown), "a 1 bc\nend\n")
    for other in ("a x bc\nend\n", "a 1 bc\nend", "a 1 bc\nendx\n", "a 1 b\nc\nend\n"):
        assert not re.fullmatch(pattern(shown), other)


@pytest.mark.parametrize(
    ("page", "sessions"), [("README.md", 6), ("docs/scan.md", 1), ("docs/log.md", 1)]
)
def test_every_command_prints_what_is_shown(
    page: str, sessions: int, host: Host, tmp_path: Path
) -> None:
    """The sessions of a page, run in order, print what the page says."""
    need.program("jq")
    need.program("runc")
    state = probe({"uretprobe": 335})["uretprobe"]["state"]
    need.kernel(state == "exempt", f"the pages show a kernel that exempts uretprobe, not {state}")
    found = blocks(page)
    assert len(found) >= sessions
    for block in found:
        steps = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
        commands, shown = zip(*(step.split("\n", 1) for step in steps), strict=True)
        script = "".join(f"{command}\necho '{_MARK}'\n" for command in commands)
        outcome = host.run(
            f"set -e\ncd {CHECKOUT}\nexec 2>&1\n{script}",
            env={
                **os.environ,
                "PYTEST_ADDOPTS": "--collect-only --quiet",
                "TMPDIR": str(tmp_path),
            },
        )
        printed = outcome.stdout.split(f"{_MARK}\n")[:-1]
        assert len(printed) == len(commands)
        for command, expected, actual in zip(commands, shown, printed, strict=True):
            matches = re.fullmatch(pattern(expected), actual)
            assert matches, f"$ {command}\n{actual}--- {page} shows:\n{expected}"
