"""The sample of the matrix on virtual machines: every cell is a test."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import need
from vm import cells

RUN = Path(__file__).parent / "run"


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Run it once."""
    need.root()
    need.program("qemu-system-x86_64")
    path = tmp_path_factory.mktemp("matrix") / "matrix.json"
    done = subprocess.run([sys.executable, RUN, "--sample", "--json", path], check=False)
    assert done.returncode in {0, 1}
    document = json.loads(path.read_text())
    return {(r["kernel"], r["stack"], r["case"]): r for r in document["results"]}


@pytest.mark.vm
@pytest.mark.parametrize(
    ("kernel", "stack", "case"),
    [(kernel.name, stack.name, case) for kernel, stack, case in cells.sample()],
)
def test_cell(
    matrix: dict[tuple[str, str, str], dict[str, Any]], kernel: str, stack: str, case: str
) -> None:
    """On this kernel and this stack the case ends as it must."""
    assert matrix[kernel, stack, case]["wrong"] == []


@pytest.mark.vm
def test_a_guest_that_does_not_end_is_ended(tmp_path: Path) -> None:
    """At its time limit a guest is stopped, its cells fail, and its console log is named."""
    need.root()
    need.program("qemu-system-x86_64")
    command = [sys.executable, str(RUN), "--kernel", "affected", "--stack", "bookworm"]
    command += ["--case", "control/runc", "--seconds", "1", "--json", str(tmp_path / "out.json")]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 1
    (row,) = json.loads((tmp_path / "out.json").read_text())["results"]
    assert "within 1 seconds" in row["wrong"][0]
    assert Path(row["wrong"][0].rsplit(" ", 1)[1]).is_file()
