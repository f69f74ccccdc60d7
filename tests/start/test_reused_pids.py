"""Process ids are given out again: nobody is spoken to, believed or killed by a number alone.

Each story is played in a pid namespace of its own, where the next number can be chosen.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shim.start
from shim.engines import oci
from support import need
from support.checkout import CHECKOUT
from support.containers import (
    ENOSYS,
    EPERM,
    OTHER_TEST_SYSCALL,
    TEST_SYSCALL,
    Lab,
    profile,
    supported,
)
from support.wrapped import WrappedLab, script

NEXT = "/proc/sys/kernel/ns_last_pid"
# As the namespace's pid 1: all that is orphaned is ours to wait for.
PRELUDE = """
import ctypes, fcntl, json, os, re, signal, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[1])

def until(what):
    deadline = time.monotonic() + 20
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found

def become(pid, work):
    "Fork a process whose number is pid, which does work."
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert child == pid
"""


def play(folder: Path, story: str, *words: str) -> Any:
    """Play ``story`` in namespaces of its own; give what it prints, as JSON."""
    need.kernel(supported(), "containers run here as root on x86-64 only")
    need.kernel(Path(NEXT).exists(), "this kernel lets nobody choose the next process id")
    enter = ["unshare", "--pid", "--fork", "--mount", "--mount-proc"]
    mount = 'mount -t tmpfs none /run && exec "$@"'
    code = f"import sys\nsys.path.insert(0, {str(CHECKOUT)!r})\n{PRELUDE}{story}"
    done = subprocess.run(
        [*enter, "sh", "-c", mount, "sh", sys.executable, "-c", code, str(folder), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- what a killed tracer has left ---------------------------------------------------------------

STALE = """
runtime, real, how = sys.argv[2:]
start = subprocess.Popen([runtime, "create", "--bundle", f"{folder}/bundle", "first"])
until(Path(folder, "started").exists)

def tracer():
    for comm in Path("/proc").glob("[0-9]*/comm"):
        if re.fullmatch(r"shim-[0-9a-f]{8}\\n", name := comm.read_text()):
            return int(comm.parent.name), name
tracer, name = until(tracer)
time.sleep(0.1)
os.kill(tracer, signal.SIGKILL)
start.kill()
start.wait()
os.waitpid(tracer, 0)

victim = Path(folder, "victim")
victim.write_text("precious")
victim.chmod(0o644)

def attack():
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    if how == "file":
        source = os.open(victim, os.O_RDONLY)
    else:
        source, answer = os.pipe()
        os.write(answer, b"0\\n" if how == "says done" else b"1 no\\n")
    for fd in range(source, 60):
        os.dup2(source, fd)
    ctypes.CDLL(None).prctl(15, name.strip().encode())
    Path("/proc/self/fd")
    signal.pause()
become(tracer, attack)
until(lambda: Path(f"/proc/{tracer}/comm").read_text() == name)

def again():
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(os.open(f"{folder}/output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(null, 0)
    os.execv(real, [real, "run", "--bundle", f"{folder}/bundle", "second"])
become(start.pid, again)
os.waitpid(start.pid, 0)
print(json.dumps([victim.read_text(), Path(folder, "output").read_text()]))
"""


@pytest.mark.parametrize("how", ["file", "says done", "says no"])
def test_who_takes_a_tracers_number_and_name_is_not_believed(tmp_path: Path, how: str) -> None:
    """An unprivileged process in the place of a tracer that was killed gets nothing from root.

    Neither is a file written that it can only read, nor can it have a start refused, nor spare it
    the adjustment. The second start even has the runtime's number of the first.
    """
    for folder in (tmp_path, *tmp_path.parents):
        if "pytest" in folder.name or "pytest" in str(folder.parent):
            folder.chmod(0o755)  # an attacker gets as far as the file itself
    lab = WrappedLab(tmp_path, need.program("runc"))
    lab.configure("deny")
    folder = tmp_path / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
    (tmp_path / "waiting").mkdir()
    waits = f"[ $# -gt 1 ] || exec echo runc version 1.1.5; echo >{tmp_path}/started; exec sleep 99"
    real = lab.real
    lab.real = script(tmp_path / "waiting" / "runc", waits)
    lab.use(TEST_SYSCALL)
    seen = play(tmp_path, STALE, lab.runtime, real, how)
    assert seen == ["precious", f"ready\n{TEST_SYSCALL} {ENOSYS}\n{OTHER_TEST_SYSCALL} {EPERM}\n"]


# --- whoever was meant is dead --------------------------------------------------------------------

KILLED = """
hook = json.loads(sys.argv[2])
init = os.fork()
if init == 0:
    while True:
        signal.pause()
state = json.dumps({"id": "x", "pid": init, "bundle": str(folder / "bundle")})
subprocess.run(hook, input=state, text=True, check=True)

def holder():
    status = Path(f"/proc/{init}/status").read_text()
    # Let go on by the tracer, which then waits for its next call.
    return "(sleeping)" in status and int(re.search(r"TracerPid:\\t(\\d+)", status)[1])
tracer = until(holder)
log = open(folder / "audit.jsonl", "a")
fcntl.flock(log, fcntl.LOCK_EX)
os.kill(init, signal.SIGKILL)
os.waitpid(init, 0)

def bystander():
    os.dup2(os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    signal.pause()
become(init, bystander)
until((folder / "said").exists)
fcntl.flock(log, fcntl.LOCK_UN)
os.waitpid(tracer, 0)
ended, _ = os.waitpid(init, os.WNOHANG)
events = [json.loads(line)["event"] for line in open(folder / "audit.jsonl")]
print(json.dumps([events, ended, (folder / "said").read_text()]))
"""


def test_who_gets_the_number_of_a_dead_init_is_left_alone(tmp_path: Path) -> None:
    """An init dies while it is followed; its number's next owner is not killed and not told.

    The log is locked meanwhile, which keeps the tracer from saying so at once.
    """
    lab = Lab(tmp_path, "runc")
    lab.configure("deny")
    folder = tmp_path / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), ["/bin/true"])
    (hook,) = lab.hooks()["prestart"]
    assert play(tmp_path, KILLED, json.dumps(hook["args"])) == [["left-alone"], 0, ""]


def test_the_start_path_signals_nobody_by_number() -> None:
    """Processes are signalled by a descriptor that stands for them."""
    for source in Path(shim.start.__file__).parent.rglob("*.py"):
        assert "os.kill" not in source.read_text(), source
