"""Real containers under real runtimes, for the tests of every way in."""

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shim import configfile
from shim.engines import oci
from shim.engines.registration import hookfile
from support import auditlog, need

EPERM, ENOSYS = 1, 38
TEST_SYSCALL, OTHER_TEST_SYSCALL = 400, 401
DENIED = {TEST_SYSCALL: EPERM, OTHER_TEST_SYSCALL: EPERM}
LET_THROUGH = {TEST_SYSCALL: ENOSYS, OTHER_TEST_SYSCALL: EPERM}
OUTPUT = f"ready\n{TEST_SYSCALL} {ENOSYS}\n{OTHER_TEST_SYSCALL} {EPERM}\n"

# Denies by default; lets through by name what an interpreter needs.
_NAMES = [
    "access", "arch_prctl", "brk", "capget", "capset", "chdir", "clone", "clone3", "close",
    "close_range", "dup", "dup2", "dup3", "epoll_create1", "epoll_ctl", "epoll_pwait", "execve",
    "exit", "exit_group", "faccessat", "faccessat2", "fchdir", "fchown", "fcntl", "fork", "fstat",
    "fstatfs", "futex", "getcwd", "getdents64", "getegid", "geteuid", "getgid", "getpid",
    "getppid", "getrandom", "gettid", "getuid", "ioctl", "lseek", "lstat", "madvise", "mmap",
    "mprotect", "mremap", "munmap", "nanosleep", "newfstatat", "open", "openat", "openat2",
    "pipe", "pipe2", "poll", "prctl", "pread64", "prlimit64", "pselect6", "read", "readlink",
    "readlinkat", "recvfrom", "recvmsg", "rseq", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
    "sched_getaffinity", "sched_yield", "sendmsg", "sendto", "set_robust_list", "set_tid_address",
    "setgid", "setgroups", "setresgid", "setresuid", "setsid", "setuid", "sigaltstack", "stat",
    "statfs", "statx", "sysinfo", "tgkill", "umask", "uname", "unlink", "vfork", "wait4",
    "waitid", "write", "writev",
]  # fmt: skip


def profile(**changes: Any) -> dict[str, Any]:
    """Return a flat OCI profile that denies by default; ``changes`` replace keys of it."""
    document: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": _NAMES, "action": "SCMP_ACT_ALLOW"}],
    }
    return document | changes


@dataclass
class Lab:
    """A directory with the hook, its settings and its log."""

    folder: Path
    runtime: str
    hook: Path = field(init=False)
    log_path: Path = field(init=False)

    def __post_init__(self) -> None:
        """Render the hook and compile settings that allow on error."""
        self.hook = hookfile.render(self.folder / "hook")
        self.log_path = self.folder / "audit.jsonl"
        self.configure("allow")

    def configure(self, on_error: str, log: Path | None = None, *more: str) -> None:
        """Write and compile the settings, ``more`` lines of them too."""
        path = self.folder / "config.yaml"
        lines = [f"on_error: {on_error}", f"log: {log or self.log_path}", *more]
        path.write_text("".join(f"{line}\n" for line in lines))
        path.chmod(0o644)
        configfile.compile_file(str(path))

    def hooks(
        self,
        *,
        stage: str = "prestart",
        test_syscall: int = TEST_SYSCALL,
        argv: Sequence[str] = (),
        env: Sequence[str] = (),
    ) -> dict[str, list[dict[str, Any]]]:
        """Return the hooks of a config.json that calls ours; ``argv`` stands before it."""
        command = [*argv, str(self.hook), "--config", f"{self.folder}/config.yaml"]
        if test_syscall:
            command += ["--test-syscall", str(test_syscall)]
        return {stage: [{"path": command[0], "args": command, "env": list(env)}]}

    def log(self) -> list[dict[str, Any]]:
        """Return the audit lines so far."""
        return auditlog.lines(self.log_path)

    @contextmanager
    def container(self, **bundle: Any) -> Iterator["Container"]:
        """Start a container that waits to make calls; ``bundle`` goes on to ``oci.bundle``."""
        name = f"shim-test-{uuid.uuid4().hex[:12]}"
        folder = self.folder / name
        folder.mkdir()
        bundle.setdefault("args", oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
        oci.bundle(folder, bundle.pop("seccomp", profile()), bundle.pop("args"), **bundle)
        with oci.started(self.runtime, folder, name) as process:
            yield Container(name, folder, process)


@dataclass
class Container:
    """One running container."""

    name: str
    folder: Path
    process: Any

    def ready(self) -> int:
        """Wait until its program runs; give its pid."""
        return oci.wait_ready(self.process, self.folder)

    def ready_pid(self) -> int:
        """Return the pid of its program, known to be ready."""
        return oci.read_pid(self.folder)

    def outcomes(self) -> dict[int, int]:
        """Let it make its calls; give what each ended with."""
        return oci.outcomes(self.process)


def run(lab: Lab, **bundle: Any) -> dict[int, int]:
    """Run a container and return what its two calls ended with."""
    with lab.container(**bundle) as container:
        container.ready()
        return container.outcomes()


def supported() -> bool:
    """Tell whether containers can be run here at all: x86-64, as root."""
    return os.uname().machine == "x86_64" and os.geteuid() == 0


def real(name: str) -> str:
    """Return the path of the runtime ``name``, for a test that runs containers."""
    need.kernel(supported(), "containers run here as root on x86-64 only")
    return need.program(name)
