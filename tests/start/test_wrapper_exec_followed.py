"""How the exec of runc is followed: its caller sees what it would see without the wrapper."""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

import shim
from support.containers import (
    DENIED,
    LET_THROUGH,
    TEST_SYSCALL,
    profile,
    real,
)
from support.isolated import BARE
from support.joined import Joiner, code
from support.wrapped import script

NULL = subprocess.DEVNULL
WAIT = "import sys; print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def runc(tmp_path: Path) -> Joiner:
    """Return a directory with the wrapper for runc, the one that is followed."""
    return Joiner(tmp_path, real("runc"))


def test_signals_go_through_the_runtime(runc: Joiner) -> None:
    """What is sent to the runtime reaches the process: the wrapper is no process between them."""
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()"
    )
    with runc.joinable():
        process = subprocess.Popen(
            runc.command("ID", *code(program)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(5):  # runc 1.1.5 alone loses one in sixty on a busy machine, measured
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
                break
        assert process.poll() == 9
        process.communicate()


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_stopped_and_continued_at_any_moment(runc: Joiner, on_error: str) -> None:
    """A runtime that is stopped while it is followed stays stopped, and goes on when told to."""
    runc.wrapped.configure(on_error)
    stopped = 0
    with runc.joinable():
        for step in range(16):
            process = subprocess.Popen(
                runc.command("ID", "/usr/bin/true"), stdin=NULL, stdout=NULL, stderr=NULL
            )
            try:
                time.sleep(step / 100)
                os.kill(process.pid, signal.SIGSTOP)  # it is not reaped before wait()
                how = os.WSTOPPED | os.WEXITED | os.WNOWAIT
                seen = os.waitid(os.P_PID, process.pid, how)
                if seen is not None and seen.si_code == os.CLD_STOPPED:
                    stopped += 1
                    before = stopped_at(process.pid)
                    time.sleep(0.05)  # for what might make it go on
                    assert stopped_at(process.pid) == before
                    os.kill(process.pid, signal.SIGCONT)
                assert process.wait(30) == 0
            finally:
                process.kill()
    assert stopped > 1


def stopped_at(pid: int) -> dict[int, list[str]]:
    """Wait until all threads of ``pid`` are stopped; give where each is in its program.

    To seize a stopped thread, or to let go of one, the kernel wakes it and it stops anew
    (ptrace_attach and __ptrace_unlink in kernel/ptrace.c), on a busy machine some 30 ms later.
    Meanwhile it is in the state R, yet comes not to its program: its registers stay as they are.
    """
    deadline = time.monotonic() + 20
    while True:
        folders = sorted(Path(f"/proc/{pid}/task").iterdir())
        stats = [(folder / "stat").read_text().rpartition(")")[2] for folder in folders]
        places = {int(each.name): (each / "syscall").read_text().split()[-2:] for each in folders}
        if all(stat.split()[0] in "Tt" for stat in stats) and ["running"] not in places.values():
            return places
        assert time.monotonic() < deadline, stats
        time.sleep(0.001)


LAUNCH = f"""
import sys
sys.path.insert(0, {str(Path(shim.__file__).parent.parent)!r})
from shim.start.wrapper.exec import run
from shim.config import DEFAULTS
real, log, *words = sys.argv[1:]
run(real, [real, *words], "", words[1], {{**DEFAULTS, "log": log}}, {{"uretprobe": 335}})
"""
FEATURES = '{{"annotations": {{"io.github.seccomp.libseccomp.version": "{}"}}}}'


@pytest.mark.parametrize(("release", "followed"), [("2.5.4", True), ("2.6.0", False)])
def test_a_name_in_the_profile_counts_where_the_runtime_knows_it(
    runc: Joiner, release: str, followed: bool
) -> None:
    """By its own libseccomp: one that knows the name compiles it into every exec's filter."""
    body = profile()
    body["syscalls"] = [*body["syscalls"], {"names": ["uretprobe"], "action": "SCMP_ACT_ALLOW"}]
    asked = runc.wrapped.folder / f"asked-{release}"
    features = FEATURES.format(release)
    script(asked, f'[ "$1" = features ] && echo \'{features}\' || exec {runc.real} "$@"')
    with runc.joinable(seccomp=body) as container:
        words = [asked, runc.wrapped.log_path, "exec", container.name, "/usr/bin/true"]
        subprocess.run([*BARE, "-c", LAUNCH, *map(str, words)], check=True)
    assert (runc.wrapped.log() != []) == followed


# A runtime that starts nothing and tells what it was started with.
TELLING = """#!/usr/bin/python3 -IS
import json, os, signal, sys, time
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
given = open("/proc/self/environ", "rb").read().decode()
tasks = open("/proc/self/task/%d/children" % os.getpid()).read()
fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
ours = 1 << 12 | 1 << 24  # SIGPIPE and SIGXFSZ: this interpreter ignores them itself
kinds = "SigPnd", "ShdPnd", "SigBlk", "SigIgn"
masks = {key: int(status[key], 16) & ~ours for key in kinds}
print(json.dumps([sys.argv[1:], given, tasks, [fd for fd in fds if fd < 3 or fd == 7], os.getcwd(),
    os.umask(0), os.getsid(0) == os.getsid(os.getppid()), masks]))
"""


def test_the_runtime_is_given_what_the_caller_gave(runc: Joiner) -> None:
    """Arguments, environment, descriptors, umask, signals: as without the wrapper; no child."""
    telling = runc.wrapped.folder / "telling" / "runc"
    telling.parent.mkdir()
    telling.write_text(TELLING)
    telling.chmod(0o755)
    found = []
    with runc.joinable():
        for plain in (True, False):
            if not plain:
                runc.wrapped.real = str(telling)
                runc.wrapped.use(TEST_SYSCALL)
            runtime = str(telling) if plain else runc.wrapped.runtime
            args = ["exec", "--env", "A=ü", runc.container.name, "x y", ""]
            done = subprocess.run(
                ["sh", "-c", 'umask 27; exec 7</dev/null "$@"', "sh", runtime, *args],
                capture_output=True,
                text=True,
                check=False,
                env={"PATH": os.environ["PATH"], "LANG": "C", "EMPTY": ""},
                cwd="/usr",
            )
            assert done.returncode == 0, done.stderr
            found.append(json.loads(done.stdout))
    for each in found:
        each[1] = {
            entry for entry in each[1].split("\0") if not entry.startswith(("SECCOMP_SHIM", "_="))
        }
    assert found[0] == found[1]


def test_a_runtime_in_front_of_the_runtime(runc: Joiner) -> None:
    """A script that starts the real runtime as its child is not taken for the container's process.

    The child has threads before ``runc init`` is started.
    """
    before = runc.wrapped.folder / "before" / "runc"
    before.parent.mkdir()
    script(before, f'{runc.real} "$@"\nexit $?')
    runc.wrapped.real = str(before)
    runc.wrapped.use(TEST_SYSCALL)
    with runc.joinable():
        assert runc.outcomes() == LET_THROUGH


def test_nothing_of_ours_is_left(runc: Joiner) -> None:
    """When the process has its filter the tracer has ended, and nobody is traced any more."""
    with runc.joinable():
        process = subprocess.Popen(
            runc.command("ID", *code(WAIT)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        joined = runc.wrapped.log()[-1]["pid"]
        deadline = time.monotonic() + 10
        while any(traced(pid) for pid in (process.pid, joined)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert Path(f"/proc/{process.pid}/exe").resolve().name == "runc"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        assert set(map(int, children.split())) <= {joined}
        process.communicate()
        assert process.returncode == 0


def traced(pid: int) -> bool:
    """Tell whether any thread of ``pid`` has a tracer."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if "TracerPid:\t0\n" not in (task / "status").read_text():
            return True
    return False


def test_a_denial_by_name_is_respected(runc: Joiner) -> None:
    """Where the profile's author denies the call, it stays denied."""
    body = profile()
    denial = {"names": [f"test-syscall-{TEST_SYSCALL}"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}
    body["syscalls"] = [*body["syscalls"], denial]
    with runc.joinable(seccomp=body):
        assert runc.outcomes() == DENIED
    assert runc.wrapped.log() == []
