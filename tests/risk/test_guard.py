"""The verb guard on real processes: it runs a command, or says who would die."""

import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from risk.processes import filtered
from shim import cli
from shim.host import libc, processes
from shim.host.cache import facts
from shim.risk import guard as guarding
from shim.risk import targets
from shim.risk.scan import DECIDING, calls
from shim.risk.targets import Targets
from support import need
from support.checkout import CHECKOUT
from support.containers import TEST_SYSCALL, Lab, real
from support.filters import denying

CALL = ("--syscall", f"test-syscall-{TEST_SYSCALL}")
BAD, GOOD = denying(*range(335), 424, 437, 439), denying(*range(424), 437, 439)
TRUE = ["--", "sh", "-c", "echo it runs"]


def guard(*words: str, code: int) -> "subprocess.CompletedProcess[str]":
    """Run the verb; its exit status must be ``code``."""
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def command(*words: str) -> list[str]:
    """Return the command line of the verb."""
    python = ["env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-P", "-m", "shim"]
    return [*python, "guard", *CALL, *words]


def test_who_would_die_is_not_probed() -> None:
    """The command is not run, the exit status is 3, and who would die of what is told."""
    with filtered(BAD) as bad, filtered(GOOD) as good:
        done = guard("--pid", str(bad), "--pid", str(good), *TRUE, code=3)
        assert done.stdout == ""
        assert "1 of 2 processes would die, or may:" in done.stderr
        assert f"  {bad} " in done.stderr
        assert "would die of SIGSEGV: ERRNO(1)" in done.stderr
        assert "not run" in done.stderr
        forced = guard("--force", "--pid", str(bad), *TRUE, code=0)
        assert forced.stdout == "it runs\n"
        assert f"  {bad} " in forced.stderr


def test_who_lives_is_probed() -> None:
    """The command runs with its words, streams and exit status as they are."""
    with filtered(GOOD) as good:
        done = guard("--pid", str(good), *TRUE, code=0)
        assert (done.stdout, done.stderr) == (
            "it runs\n",
            "seccomp-shim guard: 1 process is safe\n",
        )
        guard("--pid", str(good), "--", "sh", "-c", "exit 7", code=7)
        guard("--pid", str(good), "--", "sh", "-c", "kill -TERM $$", code=128 + signal.SIGTERM)


def test_whom_nobody_can_judge_is_not_probed() -> None:
    """One that is traced already may die as well as not."""
    with filtered(GOOD) as good:
        from shim.host.ptrace import Tracee

        tracee = Tracee(good)
        done = guard("--pid", str(good), *TRUE, code=3)
        assert f"not read: traced by process {os.getpid()}" in done.stderr
        tracee.detach()


def test_a_container(tmp_path: Path) -> None:
    """By its name: denied as it is, run where the hook has adjusted it."""
    lab = Lab(tmp_path, real("runc"))
    for hooks, code in ((None, 3), (lab.hooks(), 0)):
        with lab.container(hooks=hooks) as container:
            container.ready()
            guard("--container", container.name, *TRUE, code=code)


def started(program: str, *programs: bytes) -> "subprocess.Popen[bytes]":
    """Start ``program``, which sleeps, under filters."""

    def confined() -> None:
        from shim.host import libc

        for each in programs:
            libc.set_filter(each)

    return subprocess.Popen([program, "60"], preexec_fn=confined if programs else None)  # noqa: PLW1509


@pytest.fixture
def sleep(tmp_path: Path) -> str:
    """Return a program of its own that sleeps."""
    need.root()
    program = Path(shutil.copy(need.program("sleep"), tmp_path / "sleep"))
    with program.open("ab") as file:  # a copy counts as the file, and others may run sleep
        file.write(os.fsencode(tmp_path))
    return str(program)


def ended(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End these processes."""
    for each in processes:
        each.kill()
        each.wait()


def test_whoever_maps_a_program(sleep: str) -> None:
    """Each process that runs it is looked at, and nobody else."""
    with filtered(BAD):  # somebody else
        good = started(sleep, GOOD)
        _running(good)
        guard("--binary", sleep, *TRUE, code=0)
        bad = started(sleep, BAD)
        _running(bad)
        done = guard("--binary", sleep, *TRUE, code=3)
        assert f"1 of 2 processes would die, or may:\n  {bad.pid} sleep" in done.stderr
        ended([good, bad])


def _running(process: "subprocess.Popen[bytes]", name: bytes = b"sleep") -> None:
    deadline = time.monotonic() + 20
    while name not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_layers_share_a_program(sleep: str, tmp_path: Path) -> None:
    """A file of one image in another's overlay is the same to the kernel's probe, so to us."""
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    lower = tmp_path / "lower"
    lower.mkdir()
    shutil.move(sleep, lower / "sleep")
    merged = tmp_path / "merged"
    layers = f"lowerdir={lower},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mount = ["mount", "-t", "overlay", "-o", layers, "overlay", str(merged)]
    need.kernel(subprocess.run(mount, check=False).returncode == 0, "no overlay can be mounted")
    try:
        process = started(str(merged / "sleep"))
        _running(process)
        assert Targets((), None, str(lower / "sleep")).among([process.pid]) == [process.pid]
        assert Targets((), None, need.program("sh")).among([process.pid]) == []
        ended([process])
    finally:
        subprocess.run(["umount", merged], check=True)


def test_new_processes_are_told_of(sleep: str) -> None:
    """One that begins to run the program while the command runs is looked at."""
    watching = command("--binary", sleep, "--", "sh", "-c", "echo on; read line; exit 5")
    with subprocess.Popen(
        watching, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        assert process.stderr.readline().endswith("0 processes are safe\n")
        assert process.stdout.readline() == "on\n"
        new = started(sleep, BAD)
        line = process.stderr.readline()
        ended([new])
        assert "a new process would die, or may:" in line
        assert f" {new.pid} sleep: would die of SIGSEGV" in line
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait() == 5


def test_what_is_copied_up_without_its_contents_is_the_file(sleep: str, tmp_path: Path) -> None:
    """Overlayfs gives it other times where a container has touched it; a probe meets it still."""
    other = shutil.copyfile(sleep, tmp_path / "other")
    Path(other).chmod(0o755)
    process = started(str(other))
    _running(process, b"other")
    try:
        assert Targets((), None, sleep).among([process.pid]) == [process.pid]
        with open(sleep, "r+b") as file:
            file.write(b"\x7fELF?")
        assert Targets((), None, sleep).among([process.pid]) == []
    finally:
        ended([process])


def test_a_name_with_any_byte_is_mapped(tmp_path: Path) -> None:
    """No file's name ends a line of a process's map for us but where it does for the kernel."""
    program = shutil.copy(need.program("sleep"), str(tmp_path / "sle\rep"))
    process = started(program)
    _running(process, b"sle")
    try:
        assert Targets((), None, program).among([process.pid]) == [process.pid]
    finally:
        ended([process])


def test_who_keeps_whoever_asks_is_a_risk(sleep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process whose map cannot be read hides no other, and is told as one that may die."""
    held, good = started(sleep, GOOD), started(sleep, GOOD)
    _running(held)
    _running(good)
    real_mappings = processes.code_mappings

    def mappings(pid: int) -> list[str]:
        if pid == held.pid:
            signal.pause()
        return real_mappings(pid)

    monkeypatch.setattr(processes, "code_mappings", mappings)
    monkeypatch.setattr(targets, "_SECONDS_EACH", 2)
    try:
        found = guarding.survey(Targets((), None, sleep), calls([CALL[1]]))
        assert [(risk.pid, risk.why) for risk in found.risks] == [
            (held.pid, f"whether it maps {sleep} cannot be found out in time")
        ]
        assert good.pid in found.loaded
    finally:
        ended([held, good])


def test_a_look_that_fails_leaves_the_command_watched(sleep: str) -> None:
    """It is told, the command goes on to its end, and its exit status is ours."""
    with watching("--binary", sleep) as process:
        assert process.stderr
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        comms = {int(pid): Path(f"/proc/{pid}/comm").read_text() for pid in children}
        (watcher,) = (pid for pid, comm in comms.items() if comm != "sh\n")
        while os.readlink(f"/proc/{watcher}/fd/1") != os.devnull:
            time.sleep(0.01)  # it has not begun yet
        for pid in (process.pid, watcher):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 1024))
        assert "new processes could not be looked at: [Errno 24]" in process.stderr.readline()


def test_who_loads_its_filter_later_is_told_of() -> None:
    """A container's init is seen as its runtime first; who has none may load one at any time."""
    reader, writer = os.pipe()

    def then() -> None:
        os.read(reader, 1)
        libc.set_filter(BAD)
        signal.pause()

    with (
        filtered(then=then) as pid,
        watching("--pid", str(pid), said="1 process is safe") as guard_,
    ):
        os.write(writer, b"1")
        assert guard_.stderr
        line = guard_.stderr.readline()
        assert "a new process would die, or may:" in line
        assert f" {pid} " in line
    os.close(reader)
    os.close(writer)


def test_who_maps_it_later_is_told_of(sleep: str) -> None:
    """As dlopen does, long after its start."""
    reader, writer = os.pipe()

    def then() -> None:
        os.read(reader, 1)
        with open(sleep, "rb") as file:
            kept = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
        signal.pause()
        kept.close()

    with filtered(BAD, then=then) as pid, watching("--binary", sleep) as guard_:
        os.write(writer, b"1")
        assert guard_.stderr
        assert f" {pid} " in guard_.stderr.readline()
    os.close(reader)
    os.close(writer)


def test_lines_have_a_limit(sleep: str) -> None:
    """However many would die: so many are named, and the rest is counted."""
    many = [started(sleep, BAD) for _ in range(23)]
    for each in many:
        _running(each)
    try:
        done = guard("--binary", sleep, *TRUE, code=3)
        assert "23 of 23 processes would die, or may:" in done.stderr
        assert done.stderr.count("would die of") == 20
        assert "\n  and 3 more\n" in done.stderr
    finally:
        ended(many)


def test_new_ones_have_a_limit_of_lines(sleep: str) -> None:
    """Whoever starts processes without end fills nobody's terminal."""
    with watching("--binary", sleep) as process:
        assert process.stderr
        many = [started(sleep, BAD) for _ in range(30)]
        try:
            lines = [process.stderr.readline() for _ in range(21)]
            assert all("a new process would die" in line for line in lines[:20])
            assert "more new processes would die, or may: " in lines[20]
        finally:
            ended(many)


def test_one_that_has_ended_is_not_safe() -> None:
    """A zombie is there by its number, and nobody has seen what it was."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        done = guard("--pid", str(pid), *TRUE, code=3)
        assert "it has ended, or cannot be seen" in done.stderr
    finally:
        os.waitpid(pid, 0)


@contextmanager
def watching(*words: str, said: str = "0 processes are safe") -> "Iterator[subprocess.Popen[str]]":
    """Have the verb watch, looking again soon, while a command waits; that ends with 5."""
    soon = "from shim.risk import guard; guard._LOOKS = 0, .2, .4; guard._AGAIN = .5; "
    python = [
        sys.executable,
        "-P",
        "-c",
        f"{soon}import sys; from shim.cli import main; sys.exit(main())",
    ]
    waits = ["sh", "-c", "echo on; read line; exit 5"]
    with subprocess.Popen(
        ["env", f"PYTHONPATH={CHECKOUT}", *python, "guard", *CALL, *words, "--", *waits],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        too_late = threading.Timer(60, process.kill)
        too_late.start()
        assert said in process.stderr.readline()
        assert process.stdout.readline() == "on\n"
        yield process
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait() == 5
        too_late.cancel()


def test_an_exempt_kernel_runs_it_at_once() -> None:
    """Where nobody can die the command takes our place."""
    state = facts()["syscalls"]["uretprobe"]["state"]
    need.kernel(state not in DECIDING, "this kernel leaves uretprobe to filters")
    with filtered(BAD) as bad:
        words = [*command("--pid", str(bad), "--syscall", "uretprobe"), *TRUE]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout == "it runs\n"
        assert f"this kernel kills nobody over uretprobe ({state})" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "whom it would meet is not told"),
        (["--pid", "4194304"], "4194304: there is no such process"),
        (["--container", "nobody"], "nobody: no such container runs here"),
        (["--binary", "/nowhere"], "/nowhere: No such file or directory"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What failed and on what; exit status 2, and nothing is run."""
    need.root()
    assert cli.main(["guard", *words, *TRUE]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"seccomp-shim guard: {said}")
    assert out == ""


def test_a_command_that_is_not_there() -> None:
    """It is named; exit status 2."""
    with filtered(GOOD) as good:
        done = guard("--pid", str(good), "--", "/nowhere/bpftrace", code=2)
        assert "/nowhere/bpftrace: No such file or directory" in done.stderr
