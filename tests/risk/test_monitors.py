"""Whose word about a container's name is believed: that of the monitor that root runs."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shim.risk.container_names import EngineRecords
from shim.risk.groups import Place
from shim.risk.monitors import monitor
from support import need

ID = "0123456789abcdef" * 4
WHERE = Place("container", "podman", ID)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return a program that is called conmon and waits for a line, whatever its words."""
    need.root()
    (tmp_path / "wait").write_text("echo $$; read line")
    return Path(shutil.copy(need.program("sh"), str(tmp_path / "conmon")))


@contextmanager
def running(program: Path, *before: str, ident: str = ID) -> Iterator[int]:
    """Run it as a container's monitor runs."""
    words = [*before, str(program), f"{program.parent}/wait"]
    words += ["-c", ident, "-n", "web", "-b", "/nowhere"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield int(children[0]) if children else process.pid
        process.communicate(b"\n")


def name() -> str:
    """Return what root's container is called."""
    return EngineRecords([WHERE]).known(WHERE).name


def test_roots_monitor_names_its_container(program: Path) -> None:
    """It is a program of root's, where the host's are."""
    with running(program) as pid:
        assert monitor(pid) == (ID, "web", "/nowhere", 0)
        assert name() == "web"


@pytest.mark.parametrize(
    "before",
    [
        ("unshare", "--mount"),
        ("unshare", "--pid", "--fork"),
        ("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"),
        ("setpriv", "--ruid", "1000"),
    ],
)
def test_root_of_a_container_names_none(program: Path, before: tuple[str, ...]) -> None:
    """Nor does a user, with a program of his or one that runs as root for him."""
    for each in (program.parent, *program.parent.parents[:2]):
        os.chmod(each, 0o701)
    with running(program, *before) as pid:
        found = monitor(pid)
        assert found is None or found.user == 1000
        assert name() == ID[:12]


def test_a_program_of_others_names_none(program: Path) -> None:
    """Neither one that a user can change, nor one that is only called so by a link."""
    os.chown(program, 1000, 1000)
    with running(program) as pid:
        assert monitor(pid) is None
    os.chown(program, 0, 0)
    link = program.parent / "bin" / "conmon"
    link.parent.mkdir()
    link.symlink_to(program.rename(program.parent / "sh"))
    (link.parent / "wait").write_text("echo $$; read line")
    with running(link) as pid:
        assert Path(f"/proc/{pid}/comm").read_text() == "conmon\n"
        assert monitor(pid) is None
        assert name() == ID[:12]


def test_what_is_no_id_names_none(program: Path) -> None:
    """An engine's containers have ids of 64 digits."""
    with running(program, ident="web") as pid:
        assert monitor(pid) is None
