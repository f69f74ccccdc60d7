"""The tracer that waits beside the runtime, and the hook that meets it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shim.engines import oci
from support import need
from support.containers import (
    LET_THROUGH,
    OTHER_TEST_SYSCALL,
    OUTPUT,
    TEST_SYSCALL,
    profile,
)
from support.leftovers import remove_cgroups
from support.wrapped import WrappedLab, config_of, script

MEETINGS = Path("/run/seccomp-shim/start")


def bundle(lab: WrappedLab, name: str = "bundle", **more: Any) -> Path:
    """Make a bundle."""
    folder = lab.folder / name
    folder.mkdir()
    return oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)), **more)


def tracers(lab: WrappedLab) -> set[int]:
    """Find the tracers of this test's wrapper by their name, and by its command line."""
    found = set()
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            words = comm.with_name("cmdline").read_text()
            if re.fullmatch(r"shim-[0-9a-f]{8}\n", comm.read_text()) and str(lab.folder) in words:
                found.add(int(comm.parent.name))
    return found


def wait_until(what: Callable[[], object]) -> None:
    """Wait until ``what`` is so."""
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def entered(runc: WrappedLab, folder: Path) -> Path:
    """Let the wrapper enter the hook for a runtime that fails; give where they would have met."""
    real = runc.real
    (runc.folder / "failing").mkdir(exist_ok=True)
    pid = runc.folder / "failing" / "pid"
    fails = f"echo runc version 1.1.5; echo $$ >{pid}; exit 3"
    runc.real = script(runc.folder / "failing" / "runc", fails)
    runc.use(TEST_SYSCALL)
    subprocess.run([runc.runtime, "create", "--bundle", str(folder), "none"], check=False)
    runc.real = real
    runc.use(TEST_SYSCALL)
    return MEETINGS / pid.read_text().strip()


def run(runtime: str, folder: Path, name: str) -> tuple[int, str]:
    """Run a container to its end; give the exit status and what it printed, or what went wrong."""
    done = subprocess.run(
        oci.command(runtime, "run", "--bundle", str(folder), f"shim-{os.getpid()}-{name}"),
        input="\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def test_the_waiting_tracer_does_it_all(runc: WrappedLab) -> None:
    """While the container waits for its hook no interpreter is started."""
    hook = runc.bin / "seccomp-shim-hook"
    text = hook.read_text()
    assert text.count("-IS -c") == 1
    hook.write_text(text.replace("-IS -c", "-IS --no-such-option"))
    assert run(runc.runtime, bundle(runc), "tracer") == (0, OUTPUT)
    assert [line["event"] for line in runc.log()] == ["adjusted"]


def test_nothing_of_a_tracer_stays_in_the_bundle(runc: WrappedLab) -> None:
    """config.json is the same for every start; it names no process, and no descriptor of one."""
    folder = bundle(runc)
    entered(runc, folder)
    first = (folder / "config.json").read_bytes()
    assert run(runc.runtime, folder, "same") == (0, OUTPUT)
    assert (folder / "config.json").read_bytes() == first
    (entry,) = config_of(folder)["hooks"]["createRuntime"]
    options = ["--config", f"{runc.folder}/config.yaml", "--test-syscall", str(TEST_SYSCALL)]
    assert entry["args"][3:] == [f"{runc.bin}/seccomp-shim-hook", *options]


def test_a_tracer_that_nobody_calls_ends_with_the_runtime(runc: WrappedLab) -> None:
    """A runtime that fails before its hooks leaves no process and no file of ours behind."""
    meeting = entered(runc, bundle(runc))
    wait_until(lambda: not tracers(runc))
    assert not meeting.exists()


def test_without_its_tracer_the_hook_does_all_by_itself(runc: WrappedLab) -> None:
    """A bundle that is started later, by the runtime itself, has the hook in it."""
    folder = bundle(runc)
    entered(runc, folder)
    assert run(runc.real, folder, "late") == (0, OUTPUT)
    assert runc.events("adjusted")[0]["verified"] is True


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_a_tracer_that_dies_while_it_waits(runc: WrappedLab, on_error: str) -> None:
    """The hook finds nobody and does all by itself; the next start clears away what it left."""
    runc.configure(on_error)
    pause = script(runc.folder / "pause", "sleep 0.5")
    folder = bundle(runc, hooks={"createRuntime": [{"path": pause, "args": [pause]}]})
    with oci.started(runc.runtime, folder, f"shim-dies-{os.getpid()}") as process:
        meeting = MEETINGS / str(process.pid)
        wait_until(meeting.exists)
        (tracer,) = tracers(runc)
        os.kill(tracer, signal.SIGKILL)
        oci.wait_ready(process, folder)
        assert oci.outcomes(process) == LET_THROUGH
    assert meeting.exists()
    entered(runc, bundle(runc, "next"))
    assert not meeting.exists()


def test_a_wrapper_that_is_killed_while_its_interpreter_stands_still(runc: WrappedLab) -> None:
    """Who is left behind sees that there will be no runtime: no tracer waits for another one."""
    folder = bundle(runc)
    before = (folder / "config.json").read_bytes()
    for number in range(24):
        shell = subprocess.Popen([runc.runtime, "create", "--bundle", str(folder), "shim-killed"])
        children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children")
        while not (child := children.read_text().split()) and shell.poll() is None:
            pass
        time.sleep(0.002 * number)
        with contextlib.suppress(IndexError, ProcessLookupError):
            os.kill(int(child[0]), signal.SIGSTOP)
        shell.kill()
        shell.wait()
        with contextlib.suppress(IndexError, ProcessLookupError):
            os.kill(int(child[0]), signal.SIGCONT)
        (folder / "config.json").write_bytes(before)
    wait_until(lambda: not tracers(runc))
    delete = [runc.real, "delete", "--force", "shim-killed"]
    subprocess.run(delete, capture_output=True, check=False)
    remove_cgroups("shim-killed")  # of a runc that had not come to write its state


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_twenty_starts_of_one_bundle_at_once(lab: WrappedLab, on_error: str) -> None:
    """Each is adjusted by a tracer of its own, all agree on one config.json, no draft is left."""
    lab.configure(on_error)
    folder = bundle(lab)
    with ThreadPoolExecutor(20) as pool:
        seen = list(pool.map(lambda n: run(lab.runtime, folder, f"at-{n}"), range(20)))
    assert Counter(seen) == {(0, OUTPUT): 20}
    assert {path.name for path in folder.iterdir()} == {"rootfs", "config.json"}
    hooks = config_of(folder)["hooks"]
    assert {stage: len(entries) for stage, entries in hooks.items()} == (
        {"poststart": 1, "createRuntime": 1} if lab.real.endswith("runc") else {"poststart": 1}
    )


# --- hooks that are called twice for one container ----------------------------------------------


def without_mounts(folder: Path) -> Path:
    """Take the mount namespace out of a bundle: runc then calls each hook twice."""
    document = config_of(folder)
    linux = document["linux"]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "mount"]
    del linux["maskedPaths"], linux["readonlyPaths"]
    document["mounts"] = [
        each for each in document["mounts"] if each["destination"] in ("/proc", "/usr")
    ]
    (folder / "config.json").write_text(json.dumps(document))
    return folder


def run_apart(runtime: str, folder: Path) -> tuple[int, str]:
    """Run a container without a mount namespace in one of ours."""
    name = f"shim-apart-{os.getpid()}"
    command = ["unshare", "--mount", runtime, "run", "--bundle", str(folder), name]
    done = subprocess.run(
        command, input="\n", capture_output=True, text=True, check=False, timeout=50
    )
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


@pytest.mark.parametrize("on_error", ["allow", "deny"])
@pytest.mark.parametrize("way", ["wrapper", "prestart", "createRuntime", "both"])
def test_a_container_without_a_mount_namespace(runc: WrappedLab, way: str, on_error: str) -> None:
    """Hooks are called twice by runc there: the second finds the init held, and is content."""
    runc.configure(on_error)
    stages = {"both": ["prestart", "createRuntime"], "wrapper": []}.get(way, [way])
    hooks = {stage: runc.hooks(stage=stage)[stage] for stage in stages}
    folder = without_mounts(bundle(runc, hooks=hooks))
    runtime = runc.runtime if way == "wrapper" else runc.real
    assert run_apart(runtime, folder) == (0, OUTPUT)
    events = Counter(line["event"] for line in runc.log())
    assert (events["adjusted"], events["failed"], events["refused"]) == (1, 0, 0)


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_a_foreign_tracer_is_none_of_ours(lab: WrappedLab, on_error: str) -> None:
    """Who is held by somebody else cannot be adjusted: left as it was, or refused."""
    need.program("strace")
    lab.configure(on_error)
    holder = script(lab.folder / "hold", HOLD)
    first = {"path": holder, "args": [holder]}
    hooks = lab.hooks(stage="createRuntime")["createRuntime"]
    folder = bundle(lab, hooks={"createRuntime": [first, *hooks]})
    code, output = run(lab.real, folder, "foreign")
    assert (code == 0, output == OUTPUT) == (on_error == "allow", False)
    assert "cannot trace" in lab.log()[-1]["reason"]


HOLD = """
pid=$(sed 's/.*"pid": *\\([0-9]*\\).*/\\1/')
strace -qq -o /dev/null -e trace=none -p "$pid" </dev/null >/dev/null 2>&1 &
while grep -q 'TracerPid:.0$' "/proc/$pid/status"; do sleep 0.01; done
"""
