"""What /proc tells of processes."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.host import processes


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[int]:
    """Start a process whose name looks like fields of /proc/PID/stat."""
    program = tmp_path / "a) S 1 (b c"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen(
        [str(program), "60"], env={"A": "1", "PATH": "/x"}, cwd=tmp_path
    ) as process:
        while processes.command_line(process.pid)[0] != str(program):
            time.sleep(0.001)
        yield process.pid
        process.kill()


def test_what_is_told_of_a_process(odd: int, tmp_path: Path) -> None:
    """All of it is as it was started: name, words, environment, program, directory, user."""
    assert odd in processes.pids()
    assert processes.name(odd) == "a) S 1 (b c"
    assert processes.command_line(odd) == [f"{tmp_path}/a) S 1 (b c", "60", ""]
    assert [each for each in processes.environment(odd) if each] == [b"A=1", b"PATH=/x"]
    assert processes.link(odd, "exe") == os.path.realpath("/bin/sleep")
    assert processes.link(odd, "cwd") == str(tmp_path)
    assert processes.status_of(odd, ("Uid", "Tgid")) == {
        "Uid": [str(os.geteuid())] * 4,
        "Tgid": [str(odd)],
    }


def test_the_time_of_the_start(odd: int) -> None:
    """In the clock's ticks since the boot, whatever the process is called."""
    ticks = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
    assert 0 < ticks - int(processes.started(odd)) < 6000


def test_of_a_process_that_is_gone_nothing_is_told(odd: int) -> None:
    """Who asks by a number is told that nobody has it, who holds the process reads nothing."""
    pinned = processes.pin(odd)
    assert processes.status(pinned, ("Pid",)) == {"Pid": [str(odd)]}
    os.kill(odd, 9)
    os.waitid(os.P_PID, odd, os.WEXITED)
    assert processes.status(pinned, ("Pid",)) == {}
    os.close(pinned)
    for ask in (processes.name, processes.command_line, processes.started, processes.environment):
        with pytest.raises((FileNotFoundError, ProcessLookupError)):
            ask(odd)
    assert list(processes.pids("/nowhere")) == []


def test_our_own_capabilities() -> None:
    """The bits are those that the kernel shows of us."""
    shown = Path("/proc/thread-self/status").read_text().partition("CapEff:")[2].split()[0]
    assert f"{processes.effective_capabilities():016x}" == shown


def test_nothing_else_reads_of_other_processes() -> None:
    """Only what looks into a tracee's memory opens files of /proc by a number besides."""
    package = Path(processes.__file__).parents[1]
    readers = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for line in path.read_text().splitlines()
        if 'f"/proc/{' in line and ("open(" in line or "readlink(" in line or "read_" in line)
    }
    assert readers == {"host/processes.py", "start/inject/memory.py"}
