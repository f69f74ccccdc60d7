"""What could not be looked at, as find and patch --all tell it."""

from pathlib import Path

import pytest

from shim.cli import main
from shim.cli.find import problems
from shim.discovery.find import Survey
from support.fleet import DENYING, Host

DENIED = "Permission denied"


def test_many_closed_paths_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """An ordinary user is told once, with a count; what is alone or is another thing, by itself."""
    closed = [(f"/etc/{number}", DENIED) for number in range(11)]
    other = ("/etc/x", "is a loop of links")
    problems(Survey([], [], [closed[0], other, *closed[1:]]), (), "find")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "seccomp-shim find: /etc/x: is a loop of links",
        f"seccomp-shim find: 11 paths could not be read ({DENIED}), /etc/0 for one",
    ]
    problems(Survey([], [], closed[:1]), (), "find")
    assert capsys.readouterr().err == f"seccomp-shim find: /etc/0: {DENIED}\n"


@pytest.mark.parametrize("verb", [["find"], ["patch", "--all", "--when=always", "--check"]])
def test_others_are_told_of_where_there_are_some(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lone path that is no profile has no others."""
    host = Host(tmp_path)
    host.write("srv/p.json", DENYING)
    words = [*verb, f"--root={host.root}", "/srv/none"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "1 file invalid or not to be read\n" in said
    assert main([*words, "/srv/p.json"]) == 2
    assert "1 file invalid or not to be read, the others are listed\n" in capsys.readouterr().err
