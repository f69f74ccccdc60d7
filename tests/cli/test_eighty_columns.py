"""What an admin reads on a terminal of 80 columns, and what a mistake on the command line says."""

import os
import pty
import subprocess
import sys

import pytest

from shim import cli
from shim.cli import docker, output
from shim.cli.find import row
from shim.discovery.find import FoundProfile

MANY = [[verb] for verb in cli.VERBS if verb != "docker"]
MANY += [["fleet", each] for each in ("facts", "plan", "apply", "rollback", "report")]
for _verb in ("install", "uninstall", "status"):
    MANY += [[_verb, each] for each in ("docker", "podman", "containerd", "crio")]
LONG = "belongs to the package golang-github-containers-common, whose next version overwrites it"
PATH = "/usr/share/containers/seccomp.json"


@pytest.fixture
def width(monkeypatch: pytest.MonkeyPatch) -> int:
    """Have standard output taken for a terminal of 80 columns."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    return 80


@pytest.mark.parametrize("words", MANY, ids=" ".join)
def test_help_fits(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line of any verb's help is longer."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([*words, "--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: seccomp-shim ")
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_dockers_help_fits() -> None:
    """The verb that argparse does not know."""
    assert max(map(len, docker.HELP.splitlines())) <= 80


@pytest.mark.parametrize("verb", ["config", "demo"])
def test_exit_statuses_are_told(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also by the verbs that have few of them."""
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    assert "exit statuses: 0 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        (["status", "docker", "x"], "status docker"),
        (["find", "--such"], "find"),
        (["probe", "more\nwords"], "probe"),
        (["patch", "--diff", "--check", "p"], "patch"),
        (["fleet", "facts"], "fleet facts"),
        (["install", "docker", "--such"], "install docker"),
        (["verify", "a"], "verify"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what is wrong and where to read more, and nothing else."""
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"seccomp-shim {verb}: ")
    assert line.endswith(f" (try 'seccomp-shim {verb} --help')")


def test_a_table_fits_a_terminal(width: int) -> None:
    """A long last column is wrapped in its place; what has no room at all goes below."""
    text = output.table(("PROFILE", "STATE", "WHY"), [(PATH, "no effect", LONG), ("/p", "x", "y")])
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    at = lines[0].index("WHY")
    assert {line[: at - 2].strip() for line in lines[2:-1]} == {""}
    assert " ".join(line[at:] for line in lines[1:-1]).split() == LONG.split()
    text = output.table(
        ("PROFILE", "FORMAT", "STATE", "USED BY", "WHY"),
        [(PATH, "docker", "denies by default", "podman, built in; " * 4, LONG)],
    )
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].split() == ["PROFILE", "FORMAT", "STATE"]
    assert lines[1:3] == ["    USED BY", "    WHY"]
    assert LONG in " ".join(text.split())
    nowhere = "/a/path/that/is/longer/than/the/terminal" * 3
    assert nowhere in output.table(("A", "B"), [("x", f"see {nowhere}")])


def test_a_table_for_a_program_is_a_line_a_row() -> None:
    """What is no terminal gets every row whole."""
    text = output.table(("PROFILE", "STATE", "WHY"), [(PATH * 3, "no effect", LONG * 3)])
    assert text.splitlines()[1].endswith(LONG * 3)
    assert len(text.splitlines()) == 2


def test_a_real_terminal() -> None:
    """On a terminal the verb itself asks how wide it is."""
    main, side = pty.openpty()
    code = (
        "import sys; from shim.cli.output import table; "
        f"sys.stdout.write(table(('A', 'B'), [('x', {LONG!r})]))"
    )
    environment = {**os.environ, "COLUMNS": "40"}
    subprocess.run([sys.executable, "-c", code], stdout=side, env=environment, check=True)
    os.close(side)
    lines = os.read(main, 65536).decode().splitlines()
    os.close(main)
    assert len(lines) > 2
    assert max(map(len, lines)) <= 40


def test_built_in_is_said_plainly() -> None:
    """A use that no file tells of has no parentheses in parentheses."""
    uses = (("podman, CRI-O (default)", "(built in)"), ("docker", "/etc/docker/daemon.json:3"))
    found = FoundProfile(PATH, "", "docker", "allows", "", uses, (), "")
    assert row(found)[3] == (
        "podman, CRI-O (default), built in, docker (/etc/docker/daemon.json:3)"
    )
