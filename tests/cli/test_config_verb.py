"""The verb config: what it checks, what it says, and what it writes beside the settings."""

import os
import stat
from pathlib import Path

import pytest

from shim import cli, config, configfile

NAMES = ("settings.json", "settings.lines")


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Return a settings file whose log can be written."""
    path = tmp_path / "settings.yaml"
    write(path, f"on_error: deny\nlog: {tmp_path}/audit.jsonl\n")
    return path


def write(path: Path, text: str) -> None:
    """Write a file that nobody else may write."""
    path.write_text(text)
    path.chmod(0o644)


@pytest.mark.parametrize("words", [[], ["--compile"]])
@pytest.mark.parametrize("foreign", NAMES)
@pytest.mark.parametrize("content", ["", "mine\n", '{"source": 1}', '{"a": 1}', "yaml\nsettings\n"])
def test_a_neighbour_that_is_not_ours_stays(
    settings: Path, words: list[str], foreign: str, content: str
) -> None:
    """A check and a compilation leave a file alone that happens to have the twin's name."""
    neighbour = settings.with_name(foreign)
    write(neighbour, content)
    assert cli.main(["config", "--file", str(settings), *words]) == (2 if words else 0)
    assert neighbour.read_text() == content
    assert {path.name for path in settings.parent.iterdir()} == {settings.name, foreign}


@pytest.mark.parametrize("foreign", NAMES)
def test_a_start_leaves_a_neighbour_that_is_not_ours(settings: Path, foreign: str) -> None:
    """A start under settings that hooks name has them in force, and replaces no foreign file."""
    neighbour = settings.with_name(foreign)
    write(neighbour, "[1]")
    for _ in range(2):
        assert config.load(str(settings))[0]["on_error"] == "deny"
    assert neighbour.read_text() == "[1]"


def test_a_link_in_the_place_of_a_twin_stays(settings: Path, tmp_path: Path) -> None:
    """Also one to a file that is a twin: only a file of ours is replaced."""
    configfile.keep(str(settings))
    settings.with_name("settings.json").rename(tmp_path / "elsewhere")
    settings.with_name("settings.json").symlink_to(tmp_path / "elsewhere")
    write(settings, settings.read_text() + "# later\n")
    config.load(str(settings))
    assert settings.with_name("settings.json").is_symlink()


def test_a_check_writes_nothing(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It shows what would be in force; compiled is what is asked for, and again after an edit."""
    assert cli.main(["config", "--file", str(settings)]) == 0
    assert "on_error: deny" in capsys.readouterr().out
    assert [path.name for path in settings.parent.iterdir()] == [settings.name]
    for text in (settings.read_text(), f"log: {settings.parent}/other.jsonl\n"):
        write(settings, text)
        assert cli.main(["config", "--file", str(settings), "--compile"]) == 0
        made = {path.name for path in settings.parent.iterdir()}
        assert made == {settings.name, *NAMES}
    assert "other.jsonl" in settings.with_name("settings.lines").read_text()


def test_a_named_file_that_is_not_there_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever names a file does not mean the defaults."""
    assert cli.main(["config", "--file", str(tmp_path / "none")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"seccomp-shim config: {tmp_path}/none: no such settings file\n"


@pytest.mark.parametrize(
    ("choice", "then"),
    [
        ("deny", "every container start is refused (on_error: deny)"),
        ("allow", "nothing is adjusted"),
    ],
)
def test_a_log_without_a_directory_is_told(
    settings: Path, capsys: pytest.CaptureFixture[str], choice: str, then: str
) -> None:
    """The settings are shown, what is wrong with their log comes last, and the status is 2."""
    log = settings.parent / "none/audit.jsonl"
    write(settings, f"on_error: {choice}\nlog: {log}\n")
    assert cli.main(["config", "--file", str(settings)]) == 2
    said = capsys.readouterr()
    assert f"log: {log}\n" in said.out
    assert f"the log {log} cannot be written: the directory {log.parent} is not there" in said.err
    assert said.err.endswith(f"{then}\n")


def test_a_log_that_others_could_forge_is_told(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory that anybody may write, and a log that is no file."""
    settings.parent.chmod(stat.S_IMODE(settings.parent.stat().st_mode) | 0o002)
    assert cli.main(["config", "--file", str(settings)]) == 2
    assert f"others than root may write the directory {settings.parent}" in capsys.readouterr().err
    settings.parent.chmod(0o755)
    os.mkfifo(settings.parent / "audit.jsonl")
    if os.geteuid() == 0:
        assert cli.main(["config", "--file", str(settings)]) == 2
        assert "it is no regular file" in capsys.readouterr().err
