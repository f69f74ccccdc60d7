"""What joins a running container; a test syscall stands in for the call that kernels exempt."""

import json
import os
import pty
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shim.bpf.equivalence import difference
from shim.engines import oci
from shim.host.ptrace import installed_filters
from shim.start.digest import sha256
from support.containers import (
    DENIED,
    ENOSYS,
    LET_THROUGH,
    OTHER_TEST_SYSCALL,
    TEST_SYSCALL,
    profile,
    real,
)
from support.joined import Joiner, code, outcomes

CALLER = oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL))
NULL = subprocess.DEVNULL
STAY = "import select; select.poll().poll(20000)"


@pytest.fixture
def crun(tmp_path: Path) -> Joiner:
    """Return a directory with the wrapper for crun, whose kept program is lengthened."""
    return Joiner(tmp_path, real("crun"))


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
    assert [str(change) for change in seen.changes] == [f"x86_64 {TEST_SYSCALL}: ERRNO(1) -> ALLOW"]
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
    joiner.wrapped.configure("allow", None, "log_detail: full")
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
    """An exit status and a death by signal arrive as they do without the wrapper."""
    with joiner.joinable():
        plain, wrapped = (joiner.run("ID", *code(program), plain=one) for one in (True, False))
    assert wrapped.returncode == plain.returncode != 0
    assert (wrapped.stdout, wrapped.stderr) == (plain.stdout, plain.stderr)


def test_a_program_that_is_not_there(joiner: Joiner) -> None:
    """The runtime's own complaint and exit status, and no failure of ours in the log."""
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


@pytest.mark.parametrize(
    ("seccomp", "outcome"),
    [
        (None, {TEST_SYSCALL: ENOSYS, OTHER_TEST_SYSCALL: ENOSYS}),
        (
            profile(
                defaultAction="SCMP_ACT_ALLOW",
                syscalls=[{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}],
            ),
            {TEST_SYSCALL: ENOSYS, OTHER_TEST_SYSCALL: ENOSYS},
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
