"""What joins a running container; a canary number stands in for the call that kernels exempt."""

import json
import os
import pty
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import shim
from shim.bpf.equivalence import difference
from shim.engines import oci
from shim.host.ptrace import installed_filters
from shim.start.digest import sha256
from support import need
from support.containers import CANARY, ENOSYS, EPERM, OTHER_CANARY, profile, supported
from support.isolated import BARE
from support.joined import Joiner, code, outcomes
from support.wrapped import script

DENIED = {CANARY: EPERM, OTHER_CANARY: EPERM}
LET_THROUGH = {CANARY: ENOSYS, OTHER_CANARY: EPERM}
CALLER = oci.caller((CANARY, OTHER_CANARY))
NULL = subprocess.DEVNULL
WAIT = "import sys; print('ready', flush=True); sys.stdin.read()"
STAY = "import select; select.poll().poll(20000)"


@pytest.fixture(params=["runc", "crun"])
def joiner(request: pytest.FixtureRequest, tmp_path: Path) -> Joiner:
    """Give a folder with the wrapper for each runtime."""
    need.kernel(supported(), "containers run here as root on x86-64 only")
    return Joiner(tmp_path, need.program(request.param))


@pytest.fixture
def runc(tmp_path: Path) -> Joiner:
    """Give a folder with the wrapper for runc, the one that is followed."""
    need.kernel(supported(), "containers run here as root on x86-64 only")
    return Joiner(tmp_path, need.program("runc"))


@pytest.fixture
def crun(tmp_path: Path) -> Joiner:
    """Give a folder with the wrapper for crun, whose kept program is lengthened."""
    need.kernel(supported(), "containers run here as root on x86-64 only")
    return Joiner(tmp_path, need.program("crun"))


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_joined_process_has_exactly_one_number_more(
    joiner: Joiner, no_new_privileges: bool
) -> None:
    """Without the wrapper both numbers are denied, with it one is let through."""
    with joiner.joinable(no_new_privileges=no_new_privileges):
        assert joiner.outcomes(plain=True) == DENIED
        assert joiner.outcomes() == LET_THROUGH
        assert joiner.outcomes() == LET_THROUGH


def test_the_filter_of_a_joined_process_differs_in_one_call(joiner: Joiner) -> None:
    """The live filters of a plain and of an adjusted process, compared as functions."""
    pid_file = joiner.plain.folder / "joined"
    with joiner.joinable():
        found = []
        for plain in (True, False):
            args = ("--detach", "--pid-file", str(pid_file), "ID", *code(STAY))
            command = joiner.command(*args, plain=plain)
            # It would keep pipes open for as long as it stays.
            subprocess.run(command, check=True, stdin=NULL, stdout=NULL, stderr=NULL)
            (program,) = installed_filters(settled(int(pid_file.read_text())))
            found.append(program)
            pid_file.unlink()
    seen = difference(found[0], found[1])
    assert seen.complete
    assert [str(change) for change in seen.changes] == [f"x86_64 {CANARY}: ERRNO(1) -> ALLOW"]
    done_line = joiner.wrapped.log()[-1]
    assert done_line["sha256_after"] == sha256(found[1])


def settled(pid: int) -> int:
    """Wait until ``pid`` is Python: a detached runtime may return a moment earlier."""
    deadline = time.monotonic() + 10
    while not os.readlink(f"/proc/{pid}/exe").rpartition("/")[2].startswith("python"):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return pid


def test_the_log_tells_that_it_was_a_joined_process(joiner: Joiner) -> None:
    """One line before the change and one after it, with the mechanism and the mark of an exec."""
    with joiner.joinable() as container:
        joiner.outcomes()
        announced, done = joiner.wrapped.log()
    assert (announced["event"], done["event"]) == ("adjusting", "adjusted")
    assert done["process"] == "exec"
    assert done["container"] == container.name
    assert (done["before"], done["after"]) == ("ERRNO(1)", "ALLOW")
    if joiner.real.endswith("crun"):
        assert done["mechanism"] == "raw-bpf"
    else:
        assert (done["mechanism"], done["verified"]) == ("filter-injection", True)
        assert done["bundle"] == str(container.folder)


def test_what_the_exec_of_crun_loads_is_changed_for_one_container(crun: Joiner) -> None:
    """The program is replaced, not written to: crun links it with those of other containers."""
    with crun.joinable() as container:
        kept = Path(f"/run/crun/{container.name}/seccomp.bpf")
        before, mode = kept.read_bytes(), kept.stat().st_mode
        with kept.open("rb") as linked:
            assert crun.outcomes() == LET_THROUGH
            assert linked.read() == before
        assert kept.read_bytes().endswith(before)
        assert len(kept.read_bytes()) == len(before) + 5 * 8
        assert kept.stat().st_mode == mode
        assert not list(kept.parent.glob(".seccomp*"))
        assert crun.outcomes(plain=True) == LET_THROUGH


def test_crun_joins_with_the_program_that_it_was_given_at_the_start(crun: Joiner) -> None:
    """A container that the wrapper started needs nothing more, with the wrapper and without."""
    with crun.wrapped.container() as crun.container:
        crun.container.ready()
        started = len(crun.wrapped.log())
        assert crun.outcomes(plain=True) == LET_THROUGH
        assert crun.outcomes() == LET_THROUGH
        lines = [line for line in crun.wrapped.log()[started:] if line["event"] != "verified"]
    assert lines == []


def test_a_terminal(joiner: Joiner) -> None:
    """With a tty the process is adjusted like any other, and the terminal is the runtime's own."""
    with joiner.joinable():
        master, slave = pty.openpty()
        process = subprocess.Popen(
            joiner.command("--tty", "ID", *CALLER),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        seen = read_terminal(master)
        assert process.wait() == 0, seen
    assert outcomes(seen) == LET_THROUGH


def read_terminal(master: int) -> str:
    """Read all that comes over a terminal, and answer the caller in the container once."""
    seen, told = b"", False
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # EIO: the last holder of the other end is gone
            part = b""
        if not part:
            os.close(master)
            return seen.decode().replace("\r", "")
        seen += part
        if b"ready" in seen and not told:
            os.write(master, b"\n")
            told = True


def test_a_console_socket(joiner: Joiner) -> None:
    """Detached with a tty, the terminal goes over the socket as without the wrapper."""
    path = joiner.plain.folder / "console"
    with joiner.joinable(), socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with ThreadPoolExecutor(1) as pool:
            received = pool.submit(receive_terminal, server)
            done = joiner.run("--detach", "--tty", "--console-socket", str(path), "ID", *CALLER)
            assert done.returncode == 0, done.stderr
            seen = read_terminal(received.result(20))
    assert outcomes(seen) == LET_THROUGH


def receive_terminal(server: socket.socket) -> int:
    """Take the terminal's file descriptor from who connects."""
    server.settimeout(20)
    connection, _ = server.accept()
    with connection:
        _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
    return fds[0]


def test_a_process_file(joiner: Joiner) -> None:
    """What --process describes is adjusted, too."""
    with joiner.joinable() as container:
        config = json.loads((container.folder / "config.json").read_text())
        path = container.folder / "process.json"
        path.write_text(json.dumps({**config["process"], "args": CALLER}))
        done = joiner.run("--process", str(path), "ID", input="\n")
        assert done.returncode == 0, done.stderr
        assert outcomes(done.stdout) == LET_THROUGH


def test_many_at_once(joiner: Joiner) -> None:
    """Twelve processes that join one container together are all adjusted."""
    with joiner.joinable():
        with ThreadPoolExecutor(12) as pool:
            seen = list(pool.map(lambda _: joiner.outcomes(), range(12)))
        assert seen == [LET_THROUGH] * 12
        done = [line for line in joiner.wrapped.log() if line["event"] == "adjusted"]
    if joiner.real.endswith("runc"):
        assert len({line["pid"] for line in done}) == 12
        assert all(line["verified"] for line in done)


USER = {
    "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "user")],
    "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
    "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
}


def test_a_container_with_ids_of_its_own(joiner: Joiner) -> None:
    """In a user namespace of the container the process is adjusted like any other."""
    folder = joiner.plain.folder / "ids"
    folder.mkdir()
    for path in (folder, *folder.parents):
        if path.stat().st_uid == 0 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    oci.bundle(folder, profile(), CALLER)
    config = json.loads((folder / "config.json").read_text())
    config["linux"] |= USER
    (folder / "config.json").write_text(json.dumps(config))
    name = f"shim-ids-{os.getpid()}"
    with oci.started(joiner.real, folder, name) as process:
        oci.wait_ready(process, folder)
        joiner.container = type("Named", (), {"name": name})()
        assert joiner.outcomes(plain=True) == DENIED
        assert joiner.outcomes() == LET_THROUGH


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(7)",
        "import os; os.kill(os.getpid(), 9)",
        "import os; os.kill(os.getpid(), 15)",
    ],
)
def test_exit_codes_are_the_runtimes(joiner: Joiner, program: str) -> None:
    """An exit code and a death by signal arrive as they do without the wrapper."""
    with joiner.joinable():
        plain, wrapped = (joiner.run("ID", *code(program), plain=one) for one in (True, False))
    assert wrapped.returncode == plain.returncode != 0
    assert (wrapped.stdout, wrapped.stderr) == (plain.stdout, plain.stderr)


def test_a_program_that_is_not_there(joiner: Joiner) -> None:
    """The runtime's own complaint and exit code, and no failure of ours in the log."""
    with joiner.joinable():
        plain, wrapped = (joiner.run("ID", "/no/such", plain=one) for one in (True, False))
    assert wrapped.returncode == plain.returncode != 0
    assert "/no/such" in wrapped.stderr
    assert {line["level"] for line in joiner.wrapped.log()} <= {"info"}


def test_input_and_output_are_the_callers(joiner: Joiner) -> None:
    """A megabyte goes through the process unchanged."""
    text = "".join(f"{number}\n" for number in range(150_000))
    copy = "import sys, shutil; shutil.copyfileobj(sys.stdin, sys.stdout)"
    with joiner.joinable():
        done = joiner.run("ID", *code(copy), input=text)
    assert done.returncode == 0, done.stderr
    assert done.stdout == text


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
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 9
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


@pytest.mark.parametrize(
    ("seccomp", "outcome"),
    [
        (None, {CANARY: ENOSYS, OTHER_CANARY: ENOSYS}),
        (
            profile(
                defaultAction="SCMP_ACT_ALLOW",
                syscalls=[{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}],
            ),
            {CANARY: ENOSYS, OTHER_CANARY: ENOSYS},
        ),
    ],
)
def test_what_needs_nothing_is_left_alone(
    joiner: Joiner, seccomp: Any, outcome: dict[int, int]
) -> None:
    """Without a filter and under one that allows by default nothing is followed or logged."""
    with joiner.joinable(seccomp=seccomp):
        assert joiner.outcomes() == outcome
    assert joiner.wrapped.log() == []


def test_a_denial_by_name_is_respected(runc: Joiner) -> None:
    """Where the profile's author denies the call, it stays denied."""
    body = profile()
    denial = {"names": [f"canary-{CANARY}"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}
    body["syscalls"] = [*body["syscalls"], denial]
    with runc.joinable(seccomp=body):
        assert runc.outcomes() == DENIED
    assert runc.wrapped.log() == []


LAUNCH = f"""
import sys
sys.path.insert(0, {str(Path(shim.__file__).parent.parent)!r})
from shim.start.wrapper.exec import run
real, log, *words = sys.argv[1:]
run(real, [real, *words], "", words[1], {{"on_error": "allow", "log": log}}, {{"uretprobe": 335}})
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


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_a_state_that_cannot_be_read(joiner: Joiner, on_error: str) -> None:
    """What cannot be found out is a doubt: left as it is, or refused, and logged."""
    joiner.wrapped.configure(on_error)
    with joiner.joinable() as container:
        state = Path("/run", os.path.basename(joiner.real), container.name)
        if joiner.real.endswith("crun"):
            (state / "seccomp.bpf").rename(state / "kept")
            (state / "seccomp.bpf").symlink_to("kept")
        else:
            with (state / "state.json").open("a") as file:
                file.write("x")  # runc reads one document and no further
        if on_error == "allow":
            assert joiner.outcomes() == DENIED
        else:
            done = joiner.run("ID", *CALLER, input="\n")
            assert (done.returncode != 0, done.stdout) == (True, "")
            assert "refused (on_error: deny)" in done.stderr
    (line,) = joiner.wrapped.log()
    assert line["event"] == ("failed" if on_error == "allow" else "refused")


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_a_log_that_cannot_be_written(joiner: Joiner, on_error: str) -> None:
    """Without its line no adjustment is made: the process runs as it would have, or not at all."""
    joiner.wrapped.configure(on_error, log=joiner.wrapped.folder / "missing" / "audit.jsonl")
    with joiner.joinable() as container:
        if on_error == "allow":
            assert joiner.outcomes() == DENIED
        else:
            done = joiner.run("ID", *CALLER, input="\n")
            assert (done.returncode != 0, done.stdout) == (True, "")
            assert "refused (on_error: deny)" in done.stderr
        assert container.outcomes() == DENIED  # the container itself is none the worse


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
                runc.wrapped.use(CANARY)
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
    runc.wrapped.use(CANARY)
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
