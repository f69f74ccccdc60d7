"""The wrapper on real runtimes: create and run by each mechanism, and whatever goes wrong."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shim.bpf.equivalence import difference
from shim.engines import oci
from support import need
from support.containers import (
    DENIED,
    ENOSYS,
    EPERM,
    LET_THROUGH,
    OTHER_TEST_SYSCALL,
    TEST_SYSCALL,
    Lab,
    profile,
    run,
)
from support.filters import filters_of
from support.wrapped import WrappedLab, apart, config_of, name_of, script

MECHANISM = {"runc": "filter-injection", "crun": "raw-bpf"}


def test_without_a_test_syscall_both_calls_are_denied(lab: WrappedLab) -> None:
    """The control: through the wrapper, and nothing is changed where the kernel needs nothing."""
    lab.use(0)
    assert run(lab) == DENIED


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_exactly_one_number_is_let_through(lab: WrappedLab, no_new_privileges: bool) -> None:
    """Runc's container is adjusted by injection, crun's by a program; the log says so."""
    assert run(lab, no_new_privileges=no_new_privileges) == LET_THROUGH
    (line,) = lab.events("adjusted")
    assert line["mechanism"] == MECHANISM[name_of(lab)]
    assert line["container"].startswith("shim-test-")
    assert line["syscall"] == f"test-syscall-{TEST_SYSCALL}"


def test_the_live_filter_differs_in_one_call(lab: WrappedLab) -> None:
    """Compared as functions of every call with the filter that the runtime itself makes."""
    plain = Lab(lab.folder, lab.real)
    with plain.container() as container:
        (before,) = filters_of(container.ready())
    with lab.container() as container:
        (after,) = filters_of(container.ready())
    found = difference(before, after)
    assert found.complete
    assert [str(change) for change in found.changes] == [
        f"x86_64 {TEST_SYSCALL}: ERRNO(1) -> ALLOW"
    ]


def test_create_and_start(lab: WrappedLab) -> None:
    """As engines do it: create, state, start, kill, delete, with pid file and log."""
    name = f"shim-create-{os.getpid()}"
    folder = lab.folder / "bundle"
    folder.mkdir()
    script(folder / "unused", "")
    payload = oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL))
    oci.bundle(folder, profile(), payload)
    log = ["--log", f"{folder}/log.json", "--log-format", "json"]

    def call(*args: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            oci.command(lab.runtime, *log, *args), text=True, check=True, **options
        )

    reader, writer = os.pipe()
    with open(folder / "output", "w") as output:
        call(
            *("create", "--bundle", str(folder), "--pid-file", f"{folder}/pid", name),
            stdin=reader,
            stdout=output,
        )
    try:
        state = json.loads(call("state", name, capture_output=True).stdout)
        assert (state["status"], state["pid"]) == ("created", int((folder / "pid").read_text()))
        call("start", name)
        os.write(writer, b"\n")
        os.close(writer)
        deadline = time.monotonic() + 10
        while (folder / "output").read_text().count("\n") < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.close(reader)
        call("delete", "--force", name)
    assert (
        folder / "output"
    ).read_text() == f"ready\n{TEST_SYSCALL} {ENOSYS}\n{OTHER_TEST_SYSCALL} {EPERM}\n"


def test_a_terminal_is_handed_over_by_the_console_socket(lab: WrappedLab) -> None:
    """The engine gets the terminal's descriptor from the runtime, as without the wrapper."""
    folder = lab.folder / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)), terminal=True)
    name = f"shim-console-{os.getpid()}"
    address = f"{lab.folder}/console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        options = ["--bundle", str(folder), "--console-socket", address]
        command = oci.command(lab.runtime, "create", *options, name)
        # No pipe: what runs in the container would keep it open.
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        connection, _ = listener.accept()
        with connection:
            _, (terminal,), _, _ = socket.recv_fds(connection, 4096, 1)
    try:
        subprocess.run(oci.command(lab.runtime, "start", name), check=True)
        seen = b""
        while f"{OTHER_TEST_SYSCALL} ".encode() not in seen:
            seen += os.read(terminal, 4096)
            if seen.endswith(b"ready\r\n"):
                os.write(terminal, b"\n")
        assert f"{TEST_SYSCALL} {ENOSYS}" in seen.decode()
    finally:
        os.close(terminal)
        subprocess.run(oci.command(lab.runtime, "delete", "--force", name), check=False)


def test_the_exit_status_is_the_containers(lab: WrappedLab) -> None:
    """``run`` ends with what the container's program ends with."""
    arguments = [*oci.caller(())[:2], "-c", "import sys; sys.exit(42)"]
    with lab.container(args=arguments) as container:
        container.process.communicate()
        assert container.process.returncode == 42


def test_crun_exec_has_the_program_too(crun: WrappedLab) -> None:
    """What joins the container loads the same program from the container's state."""
    with crun.container() as container:
        container.ready()
        command = [*oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL))]
        done = subprocess.run(
            oci.command(crun.real, "exec", container.name, *command),
            input="\n",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        assert done.stdout.split("\n")[1:3] == [
            f"{TEST_SYSCALL} {ENOSYS}",
            f"{OTHER_TEST_SYSCALL} {EPERM}",
        ]


def believing_filtered(lab: WrappedLab) -> None:
    """Have the wrapper believe that this kernel lets filters deny uretprobe."""
    told = (
        "    import shim.host.cache\n"
        '    state = {"nr": 335, "state": "filtered"}\n'
        '    shim.host.cache.facts = lambda: {"syscalls": {"uretprobe": state}}\n'
    )
    line = "    from shim.start.wrapper.main import main\n"
    apart(lab.wrapper, lab.folder / "run")
    text = lab.wrapper.read_text()
    assert line in text
    lab.wrapper.write_text(text.replace(line, told + line))


@pytest.mark.parametrize(
    ("version", "mechanism"), [("2.5.5", "filter-injection"), ("2.5.6", "name"), ("2.6.0", "name")]
)
def test_a_runtime_that_knows_the_name_gets_the_name(
    tmp_path: Path, version: str, mechanism: str
) -> None:
    """What ``features`` says decides; one rule more is all that the name costs."""
    need.root()
    features = json.dumps({"annotations": {"io.github.seccomp.libseccomp.version": version}})
    (tmp_path / "real").mkdir()
    lab = WrappedLab(
        tmp_path,
        script(
            tmp_path / "real" / "runc",
            f"case $1 in features) echo '{features}' ;; *) echo 'runc version 1.3.0' ;; esac",
        ),
        test_syscall=0,
    )
    believing_filtered(lab)
    folder = lab.folder / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), ["/bin/true"])
    before = config_of(folder)
    for _ in range(2):  # the second time there is nothing left to do
        subprocess.run([lab.runtime, "create", "--bundle", str(folder), "c1"], check=True)
    after = config_of(folder)
    after["hooks"].pop("poststart", None)
    if mechanism == "name":
        rule = after["linux"]["seccomp"]["syscalls"].pop(0)
        assert rule == {"names": ["uretprobe"], "action": "SCMP_ACT_ALLOW"}
        assert after == before
        assert [line["mechanism"] for line in lab.events("adjusted")] == ["name"]
        assert "allowed by name" in lab.events("left-alone")[0]["reason"]
    else:
        assert after["linux"] == before["linux"]
        assert len(after["hooks"]["createRuntime"]) == 1


def test_crun_may_be_given_another_config(crun: WrappedLab) -> None:
    """The file that ``--config`` names is the one that is changed, wherever it is."""
    folder = crun.folder / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
    other = crun.folder / "other.json"
    (folder / "config.json").rename(other)
    name = f"shim-other-{os.getpid()}"
    options = ["run", "-f", "other.json", "--bundle", str(folder), name]
    done = subprocess.run(
        oci.command(crun.runtime, *options),
        input="\n",
        capture_output=True,
        text=True,
        check=False,
        cwd=crun.folder,
    )
    assert done.stdout == f"ready\n{TEST_SYSCALL} {ENOSYS}\n{OTHER_TEST_SYSCALL} {EPERM}\n", (
        done.stderr
    )
    assert list(folder.glob("*.json")) == []


# --- what goes wrong -------------------------------------------------------------------------


def no_folder_to_log_in(lab: WrappedLab, folder: Path, on_error: str) -> None:
    """Let the log be where it cannot be written."""
    del folder
    lab.configure(on_error, log=lab.folder / "missing" / "audit.jsonl")


def unknown_action(lab: WrappedLab, folder: Path, on_error: str) -> None:
    """Let the profile be one that nobody understands, yet none that the runtime looks at."""
    del lab, on_error
    document = config_of(folder)
    document["linux"]["seccomp"]["syscalls"].append({"names": ["x"], "action": 7, "args": "no"})
    (folder / "config.json").write_text(json.dumps(document))


def twice_linux(lab: WrappedLab, folder: Path, on_error: str) -> None:
    """Let the config say one thing twice: parsers differ in which they believe."""
    del lab, on_error
    text = (folder / "config.json").read_text().rstrip().removesuffix("}")
    (folder / "config.json").write_text(text + ', "Hooks": {}, "Annotations": {}}')


@pytest.mark.parametrize("on_error", ["allow", "deny"])
@pytest.mark.parametrize("trouble", [no_folder_to_log_in, unknown_action, twice_linux])
def test_trouble_leaves_the_start_as_it_was_or_refuses_it(
    lab: WrappedLab, trouble: Callable[[WrappedLab, Path, str], None], on_error: str
) -> None:
    """Nothing is written; the real runtime is executed, or the engine is told in its own way."""
    lab.configure(on_error)
    folder = lab.folder / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
    trouble(lab, folder, on_error)
    before = (folder / "config.json").read_bytes()
    log = folder / "log.json"
    name = f"shim-trouble-{os.getpid()}"
    options = ["--log", str(log), "--log-format", "json"]
    command = oci.command(lab.runtime, *options, "run", "--bundle", str(folder), name)
    done = subprocess.run(command, input="\n", capture_output=True, text=True, check=False)
    hooked = trouble is no_folder_to_log_in and name_of(lab) == "runc"
    if not hooked:  # there the hook was entered, and it is the hook that finds it cannot log
        assert (folder / "config.json").read_bytes() == before
        first = json.loads(log.read_text().splitlines()[0])
        assert first["msg"].startswith("seccomp-shim: ")
        assert first["level"] == ("error" if on_error == "deny" else "warning")
    if on_error == "deny":
        assert done.returncode != 0
        assert done.stdout == ""
        assert "start refused (on_error: deny)" in done.stderr
        if trouble is no_folder_to_log_in:  # one plain sentence, with the path once
            [line] = (each for each in done.stderr.splitlines() if "start refused" in each)
            assert line.count("cannot be written: No such file or directory") == 1
            assert "Errno" not in line
    elif trouble is not unknown_action:
        assert done.stdout == f"ready\n{TEST_SYSCALL} {EPERM}\n{OTHER_TEST_SYSCALL} {EPERM}\n"


def test_a_bundle_that_is_not_there_is_the_runtimes_to_complain_of(lab: WrappedLab) -> None:
    """The message and the exit status are the real runtime's own, also under deny."""
    lab.configure("deny")
    args = ["run", "--bundle", f"{lab.folder}/nowhere", "shim-nowhere"]
    ours, theirs = (
        subprocess.run(oci.command(each, *args), capture_output=True, text=True, check=False)
        for each in (lab.runtime, lab.real)
    )
    assert (ours.returncode, ours.stderr.split(" ", 1)[1:]) == (
        theirs.returncode,
        theirs.stderr.split(" ", 1)[1:],
    )


def test_a_config_that_is_a_pipe_blocks_nobody(lab: WrappedLab) -> None:
    """What is no regular file cannot be changed: refused, or left to the runtime."""
    lab.configure("deny")
    folder = lab.folder / "bundle"
    folder.mkdir()
    os.mkfifo(folder / "config.json")
    done = subprocess.run(
        oci.command(lab.runtime, "run", "--bundle", str(folder), "shim-pipe"),
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert "is no regular file" in done.stderr


def test_twenty_starts_at_once(lab: WrappedLab) -> None:
    """All are adjusted, none meets another's half-written program."""
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: run(lab), range(20)))
    assert seen == [LET_THROUGH] * 20
    assert len({line["container"] for line in lab.events("adjusted")}) == 20


def test_a_wrapper_that_is_killed_leaves_the_old_config_or_the_new(lab: WrappedLab) -> None:
    """Killed at any moment while it waits to log: the bundle is one that can be started."""
    folder = lab.folder / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
    path = folder / "config.json"
    before = path.read_bytes()
    name = f"shim-killed-{os.getpid()}"
    with lab.log_path.open("w") as log:
        fcntl.flock(log, fcntl.LOCK_EX)  # held, it keeps the wrapper at its last step
        for pause in (0.01, 0.03, 0.05, 0.08, 0.12, 0.2, 0.4):
            killed = subprocess.Popen(
                [lab.runtime, "create", "--bundle", str(folder), name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            time.sleep(pause)
            os.killpg(killed.pid, signal.SIGKILL)
            killed.wait()
            now = path.read_bytes()
            assert now == before or config_of(folder)["hooks"]
            path.write_bytes(before)
    subprocess.run(
        oci.command(lab.real, "delete", "--force", name), capture_output=True, check=False
    )
    with oci.started(lab.runtime, folder, name) as process:
        oci.wait_ready(process, folder)
        assert oci.outcomes(process) == LET_THROUGH
