"""The look after the start, at containers that do not stop: paused, in vfork, at their end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim import abi, config
from shim.bpf.program import LD_ABS, LD_MEM, RET_K, Insns, encode
from shim.host.ptrace import EndedError, StillError, Tracee, installed_filters
from shim.start.hooks import poststart
from support import need
from support.checkout import CHECKOUT
from support.containers import TEST_SYSCALL, Container, Lab
from support.filters import in_child
from support.joined import code
from support.wrapped import WrappedLab

# Its first thread waits in vfork() for a child that does not go on to a program of its own.
VFORKED = """
import ctypes
print("ready", flush=True)
libc = ctypes.CDLL(None)
if libc.vfork() == 0:
    libc.poll(None, 0, -1)
"""
# Its first thread ends and is a zombie, since another goes on.
ZOMBIE = """
import ctypes, select, threading
threading.Thread(target=select.poll().poll).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
FREEZERS = {"v1": "/sys/fs/cgroup/freezer", "v2": "/sys/fs/cgroup/unified"}


@contextlib.contextmanager
def frozen(pid: int, hierarchy: str) -> Iterator[None]:
    """Keep ``pid`` in a cgroup that is frozen."""
    root = Path(FREEZERS[hierarchy])
    if hierarchy == "v2" and Path("/sys/fs/cgroup/cgroup.controllers").exists():
        root = Path("/sys/fs/cgroup")
    need.kernel((root / "cgroup.procs").exists(), f"no cgroup {hierarchy} that can freeze")
    group = root / f"shim-frozen-{os.getpid()}"
    group.mkdir()
    control, on, off = (
        ("freezer.state", "FROZEN", "THAWED") if hierarchy == "v1" else ("cgroup.freeze", "1", "0")
    )
    before = (root / "cgroup.procs") if hierarchy == "v1" else own_group(root, pid)
    (group / "cgroup.procs").write_text(str(pid))
    try:
        (group / control).write_text(on)
        yield
    finally:
        (group / control).write_text(off)
        with contextlib.suppress(ProcessLookupError):
            before.write_text(str(pid))
        while (group / "cgroup.procs").read_text():
            time.sleep(0.01)
        group.rmdir()


def own_group(root: Path, pid: int) -> Path:
    """Return the file that puts ``pid`` back into the cgroup v2 where it is."""
    (path,) = [
        line[3:]
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        if line.startswith("0::")
    ]
    return root / path.lstrip("/") / "cgroup.procs"


def look(lab: WrappedLab, container: Container, seconds: int = 1) -> dict[str, object]:
    """Call the hook as the runtime does, and give its line once nothing of it is left."""
    lab.configure("allow", None, "log_detail: full")
    lab.log_path.unlink(missing_ok=True)
    hook = f"{lab.bin}/seccomp-shim-verify"
    options = ["--config", f"{lab.folder}/config.yaml", "--test-syscall", str(TEST_SYSCALL)]
    state = {
        "id": container.name,
        "pid": container.ready_pid(),
        "bundle": str(container.folder),
    }
    subprocess.run(
        [hook, *options, "--seconds", str(seconds)], input=json.dumps(state), text=True, check=True
    )
    deadline = time.monotonic() + 20
    while not (lines := lab.events("verified")) or lookers(lab):
        assert time.monotonic() < deadline, "the look does not end"
        time.sleep(0.01)
    return lines[0]


def lookers(lab: Lab) -> list[int]:
    """Find the processes that look on behalf of this lab."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if os.fsencode(f"{lab.folder}/config.yaml") in words and b"--seconds" in words:
                found.append(int(entry.parent.name))
    return found


def tracer_of(pid: int) -> int:
    """Return who traces a process, 0 if nobody does."""
    (line,) = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("TracerPid:")
    ]
    return int(line.split()[1])


@contextlib.contextmanager
def started(lab: WrappedLab, text: str) -> Iterator[Container]:
    """Run Python ``text``, which does not end by itself, in a container that nothing touched."""
    with Lab(lab.folder, lab.real).container(args=code(text)) as container:
        pid = container.ready()
        try:
            yield container
        finally:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("hierarchy", FREEZERS)
def test_a_paused_container(lab: WrappedLab, hierarchy: str) -> None:
    """What is frozen does not stop for a look, by the older freezer: the look ends, traces gone."""
    with Lab(lab.folder, lab.real).container() as container:
        pid = container.ready()
        with frozen(pid, hierarchy):
            line = look(lab, container)
            assert tracer_of(pid) == 0
        if hierarchy == "v1":
            assert (line["verified"], line["level"]) == (None, "info")
            assert "does not stop (paused" in str(line["reason"])
        assert container.outcomes()[TEST_SYSCALL] == 1


def test_a_paused_container_that_goes_on_is_looked_at(lab: WrappedLab) -> None:
    """A pause that ends in time costs the look nothing but time."""
    with lab.container() as container:
        pid = container.ready()
        lab.configure("allow", None, "log_detail: full")
        with frozen(pid, "v1"):
            hook = [f"{lab.bin}/seccomp-shim-verify", "--config", f"{lab.folder}/config.yaml"]
            state = {"id": "x", "pid": pid, "bundle": str(container.folder)}
            options = ["--test-syscall", str(TEST_SYSCALL), "--seconds", "20"]
            subprocess.run([*hook, *options], input=json.dumps(state), text=True, check=True)
            deadline = time.monotonic() + 10
            while not tracer_of(pid):
                assert time.monotonic() < deadline
                time.sleep(0.005)
        while not (lines := [each for each in lab.events("verified") if each["container"] == "x"]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert lines[0]["verified"] is True


def test_a_container_in_vfork(lab: WrappedLab) -> None:
    """A first thread that waits for the child of its vfork stops for nobody."""
    with started(lab, VFORKED) as container:
        pid = container.ready_pid()
        children = Path(f"/proc/{pid}/task/{pid}/children")
        deadline = time.monotonic() + 10
        while not children.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        line = look(lab, container)
        assert (line["verified"], line["level"]) == (None, "info")
        assert "in vfork" in str(line["reason"])
        assert tracer_of(pid) == 0


def test_a_container_whose_first_thread_has_ended(lab: WrappedLab) -> None:
    """There is nothing to look at in a zombie, and no reason to wait for it."""
    with started(lab, ZOMBIE) as container:
        pid = container.ready_pid()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.005)
        line = look(lab, container, seconds=30)
        assert (line["verified"], line["level"]) == (None, "info")
        assert line["reason"] == "the container's process has ended"
        assert tracer_of(pid) == 0


def test_whoever_looks_lets_go_in_time() -> None:
    """The same holds for a look from a program that lives on: it holds nothing afterwards."""
    need.root()
    with subprocess.Popen(["sleep", "60"]) as process:
        with frozen(process.pid, "v1"):
            with pytest.raises(StillError, match="does not stop"):
                installed_filters(process.pid, seconds=0.2)
            assert tracer_of(process.pid) == 0
        Tracee(process.pid).detach()
        process.kill()


def test_whoever_has_the_number_by_now_is_let_go() -> None:
    """A process that is not the one that is meant has its filters kept to itself, and goes on."""
    need.root()
    with subprocess.Popen(["sleep", "60"]) as process:
        with pytest.raises(EndedError, match="has ended"):
            installed_filters(process.pid, is_meant=lambda: False)
        assert tracer_of(process.pid) == 0
        assert process.poll() is None
        process.kill()


def test_a_look_whose_caller_is_killed_ends_by_itself() -> None:
    """Nothing is left for good by a kill: the child that looks has a time of its own."""
    need.root()
    with subprocess.Popen(["sleep", "60"]) as process:
        with frozen(process.pid, "v1"):
            caller = os.fork()
            if caller == 0:
                try:
                    installed_filters(process.pid, seconds=1)
                finally:
                    os._exit(0)
            deadline = time.monotonic() + 10
            while not (tracer := tracer_of(process.pid)):
                assert time.monotonic() < deadline
                time.sleep(0.005)
            os.kill(caller, signal.SIGKILL)
            os.waitpid(caller, 0)
            while Path(f"/proc/{tracer}").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert tracer_of(process.pid) == 0
        process.kill()


@pytest.mark.parametrize("name", ["prestart", "poststart"])
def test_standard_input_that_never_ends(tmp_path: Path, name: str) -> None:
    """A caller that neither writes the state nor closes the pipe does not keep a hook for good."""
    lab = WrappedLab(tmp_path, "/bin/true")
    reader, writer = os.pipe()
    argv = [name, "--config", f"{tmp_path}/config.yaml", "--test-syscall", str(TEST_SYSCALL)]
    program = (
        f"from shim.start.hooks import {name}\nfrom shim.start import session\n"
        f"session._STATE_SECONDS = 1\n{name}.main({argv})"
    )
    subprocess.run(
        [sys.executable, "-c", program], stdin=reader, env={"PYTHONPATH": str(CHECKOUT)}, check=True
    )
    os.close(reader)
    os.close(writer)
    assert "no container state on standard input within" in lab.log()[0]["reason"]


def slow() -> bytes:
    """Return a filter that is decided after some 25 ms: each of its paths ends with the same."""
    steps: Insns = [(abi.BPF_ST, 0, 0, 0)]
    for step in range(11):
        steps += [
            (LD_MEM, 0, 0, 0),
            (abi.BPF_ALU | abi.BPF_ADD, 0, 0, 1 << step),
            (abi.BPF_ST, 0, 0, 1),
            (LD_ABS, 0, 0, 16),
            (abi.BPF_JMP | abi.BPF_JSET, 0, 2, 1 << step),
            (LD_MEM, 0, 0, 1),
            (abi.BPF_ST, 0, 0, 0),
        ]
    return encode([*steps, (RET_K, 0, 0, abi.SECCOMP_RET_ALLOW)])


@pytest.mark.parametrize("over", ["processor time", "all of it"])
def test_filters_that_take_too_long_are_told(over: str, tmp_path: Path) -> None:
    """Whatever a program loads, the look says that it cannot be told, and does not just end."""
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"]}
    spec = {"ociVersion": "1.0.2", "linux": {"seccomp": profile}}
    (tmp_path / "config.json").write_text(json.dumps(spec))

    class Look(poststart.Verification):
        def _is_container(self, config: object) -> None:
            pass

        def _settled(self) -> list[bytes]:
            return [slow()] * 200

    def looked() -> str:
        check = Look(dict(config.DEFAULTS), {})
        check.facts["bundle"] = str(tmp_path)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        if over == "processor time":
            poststart._OPINION_SECONDS = 0.05  # type: ignore[assignment]
        else:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            check.compare({"test": TEST_SYSCALL})
        except poststart.CannotTell as reason:
            return f"{reason}, {signal.alarm(0)}"
        return "nothing"

    assert in_child(looked) == "its filters are too intricate to be judged, 10"
