"""What gaps says of every number from 0 to 600, against calls that a container really made."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shim.data import directory
from shim.engines import oci
from shim.profile import docker
from support import containers, need
from support.checkout import CHECKOUT
from vm.inside.answers import LAST_CALL, disagreements, table
from vm.victim import ready

DEFAULT = directory("profiles") / "docker" / "default.json"
STRICT = {
    "defaultAction": "SCMP_ACT_KILL_PROCESS",
    "syscalls": [
        {"names": ["execve", "read", "write", "fork", "clone", "wait4", "exit_group", "mmap",
                   "alarm", "prctl", "brk", "arch_prctl", "fstat", "newfstatat", "mprotect",
                   "set_tid_address", "set_robust_list", "rseq", "prlimit64", "readlink",
                   "getrandom", "rt_sigaction", "rt_sigreturn", "readlinkat", "rt_sigprocmask",
                   "futex", "close", "openat", "fcntl", "getdents64", "ioctl", "capget", "capset",
                   "chdir", "setuid", "setgid", "setgroups", "exit", "gettid", "getpid", "tgkill",
                   "epoll_pwait", "epoll_ctl", "epoll_create1", "nanosleep", "munmap", "madvise",
                   "sigaltstack", "sched_yield", "fstatfs", "pselect6", "unlinkat", "faccessat2",
                   "statx", "openat2", "fchown", "getppid", "dup3", "pipe2", "lseek",
                   "restart_syscall", "access", "stat", "lstat", "close_range", "getuid",
                   "getcwd", "umask"],
         "action": "SCMP_ACT_ALLOW"},
        {"names": ["statfs", "mseal"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"names": ["sync"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    ],
}  # fmt: skip


def _gaps(*options: str) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "shim", "gaps", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _flat(kind: str) -> dict[str, Any] | None:
    if kind == "strict":
        return STRICT
    return docker.resolve(
        json.loads(DEFAULT.read_bytes()),
        capabilities=docker.DEFAULT_CAPABILITIES,
        machine="x86_64",
        kernel=(6, 18),
    )


@pytest.mark.parametrize(
    ("program", "kind"), [("runc", "default"), ("crun", "default"), ("runc", "strict")]
)
def test_every_number_answers_as_gaps_says(program: str, kind: str, tmp_path: Path) -> None:
    """A container makes them all; by its profile and by its filter, no answer is another."""
    need.kernel(containers.supported(), "containers need root on x86-64")
    runtime = need.program(program)
    flat = _flat(kind)
    oci.bundle(tmp_path, flat, ["/victim", "sweep"])
    shutil.copy(ready(), tmp_path / "rootfs/victim")
    (tmp_path / "profile.json").write_text(json.dumps(flat))
    with oci.started(runtime, tmp_path, f"gaps-{program}-{kind}") as process:
        assert process.stdout
        first = process.stdout.readline()  # the filter is in force by now
        living = _gaps("--pid", str(oci.read_pid(tmp_path)))
        made = table(first + process.stdout.read())
    assert len(made) == 2 * (LAST_CALL + 1)
    told = _gaps("--profile", str(tmp_path / "profile.json"), "--runtime", program)
    assert disagreements(told, made) == []
    assert disagreements(living, made) == []
    by_kind = told["counts"]
    assert by_kind["allowed"] > 60
    assert by_kind["killed" if kind == "strict" else "errno"] > 40
