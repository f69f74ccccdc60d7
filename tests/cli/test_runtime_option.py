"""The option --runtime of every verb that has it: one check for all of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.runtimes import telling
from shim.cli import main
from support import need
from support.profiles import DOCKER, LAYOUTS

VERBS: dict[str, Callable[[str], list[str]]] = {
    "patch": lambda file: ["patch", "--when=always", file],
    "patch --all": lambda file: ["patch", "--when=always", "--all", "--check", file],
    "verify": lambda file: ["verify", file, file],
    "demo": lambda _: ["demo"],
}
WRONG = [
    ("/nonexistent", "/nonexistent: no such runtime"),
    ("no-such", "no-such: no such runtime on PATH"),
    ("./folder", "./folder: is no program"),
    ("./empty", "./empty: is not executable"),
    ("empty", "empty: no such runtime on PATH (for the file here write ./empty)"),
    ("/bin/true", "/bin/true: is neither runc nor crun"),
    ("dir", "dir: is neither runc nor crun"),
    ("./silent", "./silent: is neither runc nor crun"),
]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a profile's path; what the wrong names mean is in the working directory."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\n")
    silent.chmod(0o755)
    (tmp_path / "p.json").write_text(LAYOUTS["tabs"](DOCKER))
    monkeypatch.chdir(tmp_path)
    return "p.json"


@pytest.mark.parametrize(("name", "line"), WRONG)
@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_runtime_is_refused_in_one_line(
    file: str, capsys: pytest.CaptureFixture[str], verb: str, name: str, line: str
) -> None:
    """What cannot be asked, or is another program, is never taken for a runtime."""
    if verb == "demo":
        need.root()
    words = VERBS[verb](file)
    assert main([*words, "--runtime", name]) == 2
    done = capsys.readouterr()
    assert done.err.startswith(f"seccomp-shim {words[0]}: {line}")
    assert (done.out, done.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("verb", ["patch", "patch --all", "verify"])
def test_a_path_need_not_be_absolute(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """A runtime is found by a path from the working directory as by any other."""
    telling(tmp_path / "bin", crun="2.6.1")
    assert main([*VERBS[verb](file), "--runtime", "./bin/crun"]) in (0, 1)
    assert "neither" not in capsys.readouterr().err
