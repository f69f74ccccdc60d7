"""The verb guard on real processes: it runs a command, or says who would die."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from risk.processes import filtered
from shim import cli
from shim.host.cache import facts
from shim.risk.scan import DECIDING
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
    return shutil.copy(need.program("sleep"), str(tmp_path / "sleep"))


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


def _running(process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while b"sleep" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
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
