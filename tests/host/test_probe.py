"""The probe on this very kernel."""

import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from shim.host import probe
from support import need
from support.isolated import BARE, isolated

CALLS = {"uretprobe": 335, "uprobe": 336}
PROBE = "import json\nfrom shim.host.probe import probe\nprint(json.dumps(probe({calls})))"


def raw_answer(nr: int) -> int:
    """Call ``nr`` without a filter by other means: the errno, or minus the signal it died of."""
    code = f"""
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(4, 0)
libc.syscall({nr})
sys.exit(ctypes.get_errno())
"""
    return subprocess.run([*BARE, "-c", code], check=False).returncode


def test_the_state_agrees_with_what_the_bare_call_gives() -> None:
    """ENOSYS without a filter is absent; SIGILL, ENXIO or EPROTO is filtered or exempt."""
    need.kernel(not probe.filtered_self(), "the tests run inside a seccomp filter")
    for name, found in probe.probe(CALLS).items():
        answer = raw_answer(CALLS[name])
        if os.uname().machine != "x86_64" or answer == 38:
            assert found["state"] == "absent"
        else:
            assert answer in {-4, 6, 71}
            assert found["state"] in {"filtered", "exempt"}


def test_a_number_that_no_kernel_has_is_absent() -> None:
    """A test_syscall number gets ENOSYS without a filter, and that is all absent means."""
    need.kernel(not probe.filtered_self(), "the tests run inside a seccomp filter")
    assert probe.probe({"test_syscall": 400}) == {"test_syscall": {"nr": 400, "state": "absent"}}


def test_a_call_that_filters_can_deny_is_filtered() -> None:
    """An ordinary call (getpid, which cannot fail) is answered by the filter, not by the kernel."""
    assert probe.probe({"getpid": 39})["getpid"]["state"] == "filtered"


def test_an_ordinary_user_gets_the_same_verdict() -> None:
    """The probe needs no privilege."""
    need.root()
    early = "import json, os\nfrom shim.host import libc, probe"  # while the checkout can be read
    code = f"{early}\nos.setgid(65534); os.setuid(65534)\n{PROBE.format(calls=CALLS)}"
    assert isolated(code) == probe.probe(CALLS)


# Denies 335, 336 and 400 with an errno, as a container's profile does; lets all else through.
OUTER = """
import json
from shim import abi
from shim.host import libc, probe
insns = [(0x20, 0, 0, 0)]
insns += [(0x15, left, 0, nr) for left, nr in ((3, 335), (2, 336), (1, 400))]
insns += [(6, 0, 0, 0x7FFF0000), (6, 0, 0, {answer})]
libc.prctl(abi.PR_SET_NO_NEW_PRIVS, 1)
libc.set_filter(b"".join(
    code.to_bytes(2, "little") + bytes((jt, jf)) + k.to_bytes(4, "little")
    for code, jt, jf, k in insns
))
print(json.dumps([probe.filtered_self(), probe.probe({{"uretprobe": 335, "test_syscall": 400}})]))
"""
ERRNO, TRAP, KILL = 0x50000, 0x30000, 0x80000000


@pytest.mark.parametrize("answer", [ERRNO | 1, ERRNO | 38, ERRNO | 6, ERRNO | 77, TRAP, KILL])
def test_inside_a_filter_it_claims_only_what_is_certain(answer: int) -> None:
    """An exempt call is seen through any filter; all else that the filter denies is unknown."""
    need.kernel(os.uname().machine == "x86_64", "this is not x86-64")
    inside, found = isolated(OUTER.format(answer=answer))
    assert inside
    assert found["test_syscall"]["state"] == "unknown"
    assert found["test_syscall"]["reason"]
    outside = probe.probe(CALLS)["uretprobe"]["state"]
    assert found["uretprobe"]["state"] == ("exempt" if outside == "exempt" else "unknown")


HOSTILE = {
    "no open file but the one to answer on": "os.closerange(3, 1024); os.close(0); os.close(2)",
    "SIGCHLD ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "all signals blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "SIGILL and SIGALRM ignored": "[signal.signal(n, signal.SIG_IGN) for n in (4, 14)]",
    "no file system": "os.chroot({empty!r}); os.chdir('/')",
    "another root thread": "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
}


@pytest.mark.parametrize("how", HOSTILE)
def test_what_the_caller_is_like_does_not_matter(tmp_path: Path, how: str) -> None:
    """Whatever the probe inherits, the verdict is the same and no child is left."""
    need.root()
    code = f"""
import json, os, signal, threading, time, ctypes
from shim.host import libc
from shim.host.probe import probe
import _signal
{HOSTILE[how].format(empty=str(tmp_path))}
found = probe({CALLS})
try:
    os.waitpid(-1, os.WNOHANG)
    left = True
except ChildProcessError:
    left = False
print(json.dumps([found, left]), flush=True)
"""
    assert isolated(code) == [probe.probe(CALLS), False]


def test_a_child_that_hangs_is_ended() -> None:
    """A call that never comes back ends with the child's alarm, also where SIGALRM was blocked."""
    code = """
import json, os, signal
from shim.host import probe
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
probe._SECONDS = 1
pause = 34
print(json.dumps(probe.probe({"pause": pause})))
"""
    assert isolated(code, timeout=60) == {"pause": {"nr": 34, "state": "filtered"}}


def core_dir(folder: Path) -> str:
    """Return code that makes ``directory`` the place for cores and allows them."""
    return f"""
import os, resource
os.chdir({str(folder)!r})
highest = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (highest, highest))
"""


def test_the_children_leave_no_core(tmp_path: Path) -> None:
    """Where a child that dies of SIGILL does leave a core, the probe's children do not."""
    crash = f"import sys\n{core_dir(tmp_path)}\nos.kill(os.getpid(), {int(signal.SIGILL)})"
    subprocess.run([*BARE, "-c", crash], check=False, capture_output=True)
    cores = list(tmp_path.iterdir())
    need.kernel(bool(cores), "this host writes no core into the working folder")
    for core in cores:
        core.unlink()
    isolated(core_dir(tmp_path) + PROBE.format(calls=CALLS))
    assert list(tmp_path.iterdir()) == []


def test_the_kernel_log_does_not_hear_of_it() -> None:
    """No message of the kernel names the process that probed."""
    need.root()
    name = f"shim{os.getpid()}"
    log = os.open("/dev/kmsg", os.O_RDWR | os.O_NONBLOCK)
    try:
        os.lseek(log, 0, os.SEEK_END)
        os.write(log, f"{name} begins\n".encode())
        isolated(f"open('/proc/self/comm', 'w').write({name!r})\n" + PROBE.format(calls=CALLS))
        os.write(log, f"{name} ends\n".encode())
        lines: list[str] = []
        while not any(f"{name} ends" in line for line in lines):
            select.select([log], [], [])
            lines.append(os.read(log, 8192).decode().splitlines()[0])
    finally:
        os.close(log)
    told = [line.partition(";")[2] for line in lines if name in line]
    assert told == [f"{name} begins", f"{name} ends"]


def test_another_architecture_is_absent_without_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off x86-64 no child is even forked."""
    monkeypatch.setattr(
        os, "uname", lambda: os.uname_result(("Linux", "h", "6.12", "v", "aarch64"))
    )
    monkeypatch.setattr(os, "fork", None)
    assert probe.probe(CALLS)["uretprobe"]["state"] == "absent"
