"""An error below a directory descriptor names the whole path, not the last part of it."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from shim import atomic
from shim.cli import main
from shim.host.untrusted_files import PathWalk
from support import need
from support.profiles import DOCKER, LAYOUTS


@pytest.mark.parametrize("verb", [["patch", "-i"], ["patch", "--all", "--yes"]])
@pytest.mark.parametrize("below", ["", "/y"])
def test_a_state_that_cannot_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str], below: str
) -> None:
    """Where backups cannot be kept, it is said where that is, and nothing is changed."""
    profile = tmp_path / "p.json"
    profile.write_text(LAYOUTS["tabs"](DOCKER))
    words = [*verb, "--when=always", f"--state=/proc/x{below}", str(profile)]
    assert main(words) == 2
    assert capsys.readouterr().err.endswith(
        "seccomp-shim patch: /proc/x: No such file or directory\n"
    )
    assert "uretprobe" not in profile.read_text()


def test_of_an_ordinary_user() -> None:
    """A home directory that is not there is named whole."""
    need.root()
    script = (
        "import os; from shim.host.untrusted_files import secure; os.seteuid(65534)\n"
        "try: secure('/nonexistent/state')\n"
        "except OSError as error: print(error.filename, error.strerror)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout == "/nonexistent Permission denied\n"


def test_a_draft_that_cannot_be_written(tmp_path: Path) -> None:
    """A full disk is told of with the file, and nothing is left of the draft."""
    path = str(tmp_path / "file")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            atomic.write_atomic(path, b"x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == path
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    """What the kernel refuses to look up is named with the directory it is in."""
    path = str(tmp_path / ("x" * 300))
    with pytest.raises(OSError, match="too long") as caught:
        PathWalk().reach(path)
    assert caught.value.filename == path
