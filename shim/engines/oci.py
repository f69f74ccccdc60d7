"""Run a tiny container with runc or crun directly: no image, no network, nothing left behind.

The container's root is empty but for the host's /usr, bound read-only; what runs in it is the
interpreter that runs us.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shim.errors import ShimError
from shim.host.untrusted_files import secure

# Makes each call in a child of its own, since the kernel may answer with SIGILL, and prints how the
# call ended. It says so when it is ready, and then waits until somebody has looked at it.
_PAYLOAD = """
import ctypes, os, sys
print("ready", flush=True)
sys.stdin.readline()
libc = ctypes.CDLL(None, use_errno=True)
for nr in map(int, sys.argv[1:]):
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(4, 0)
        libc.syscall(nr)
        os._exit(ctypes.get_errno())
    print(nr, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

_READY = b"ready\n"
_SECONDS = 60  # until the container is ready, on the busiest machine
_END_SECONDS = 10

_PTS = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
_MASK = {"masked": ["/proc/kcore", "/proc/keys"], "readonly": ["/proc/sys", "/proc/sysrq-trigger"]}


def bundle(
    directory: Path,
    seccomp: dict[str, Any] | None,
    args: Sequence[str],
    *,
    hooks: dict[str, list[dict[str, Any]]] | None = None,
    no_new_privileges: bool = True,
    terminal: bool = False,
) -> Path:
    """Write a bundle into ``directory``: ``args`` under the flat OCI profile ``seccomp``.

    ShimError: others can change it (TMPDIR is theirs), and root runs what it says.
    """
    secure(str(directory))
    root = directory / "rootfs"
    shared = {"/usr", _interpreter_root()}
    for name in ("proc", "dev", "sys", "tmp", *(path[1:] for path in shared)):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        "maskedPaths": _MASK["masked"],
        "readonlyPaths": _MASK["readonly"],
    }
    if seccomp is not None:
        linux["seccomp"] = seccomp
    capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    config = {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": True},
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "args": list(args),
            "env": ["PATH=/usr/sbin:/usr/bin"],
            "noNewPrivileges": no_new_privileges,
            "capabilities": dict.fromkeys(
                ("bounding", "effective", "permitted", "ambient"), capabilities
            ),
        },
        "hostname": "shim",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": _PTS},
            *(
                {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]}
                for path in sorted(shared)
            ),
        ],
        "hooks": hooks or {},
        "linux": linux,
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    return directory


def caller(numbers: Sequence[int]) -> list[str]:
    """Return the command that, once told to go on, makes the calls ``numbers`` and prints each end.

    A line is ``NR CODE``: CODE is the errno, or minus the signal that ended the call's process.
    """
    return [os.path.realpath(sys.executable), "-IS", "-c", _PAYLOAD, *map(str, numbers)]


def command(runtime: str, *args: str) -> list[str]:
    """Return the command line that runs ``runtime`` on this host, whatever its cgroups are.

    crun refuses a host with cgroup v1 beside v2; it gets a mount namespace that shows v2 alone.
    """
    if os.path.basename(runtime) != "crun":
        return [runtime, *args]
    plain = [runtime, "--cgroup-manager=disabled", *args]
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return plain
    script = 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh", *plain]


@contextmanager
def started(
    runtime: str, directory: Path, ident: str, **streams: Any
) -> Iterator["subprocess.Popen[str]"]:
    """Run the bundle in ``directory`` as container ``ident``; gone with everything when left."""
    process = subprocess.Popen(
        command(
            runtime, "run", "--bundle", str(directory), "--pid-file", f"{directory}/pid", ident
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **streams,
    )
    try:
        yield process
    finally:
        process.kill()
        try:
            process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.poll()  # it has ended; whom it has started holds its pipes
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                command(runtime, "delete", "--force", ident),
                capture_output=True,
                check=False,
                timeout=_END_SECONDS,
            )


def wait_ready(process: "subprocess.Popen[str]", directory: Path) -> int:
    """Wait until the ``caller`` in the container is ready; give its pid on the host.

    ShimError: it is not, or not in time.
    """
    try:
        ready = says_ready(process.stdout.fileno() if process.stdout else -1)
    except TimeoutError:
        raise ShimError(f"the container is not ready in {_SECONDS} seconds") from None
    if not ready:
        raise ShimError("the container did not start", hint=_errors(process))
    return read_pid(directory)


def says_ready(out: int) -> bool:
    """Tell whether a program says on ``out`` that it is ready, or something else, or ends.

    TimeoutError: neither in a minute.
    """
    deadline, said = time.monotonic() + _SECONDS, b""
    while said != _READY:
        if not select.select([out], [], [], max(0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        part = os.read(out, len(_READY) - len(said))
        said += part
        if not part or not _READY.startswith(said):
            return False
    return True


def _errors(process: "subprocess.Popen[str]") -> str:
    """Return what a process that is about to end says is wrong."""
    try:
        return " ".join(process.communicate(timeout=_END_SECONDS)[1].split())
    except subprocess.TimeoutExpired:
        return ""


def read_pid(directory: Path) -> int:
    """Return the pid of the container that runs from ``directory``."""
    deadline = time.monotonic() + 10
    pid_file = directory / "pid"
    # runc writes it when the program may already run
    while not (pid_file.exists() and (text := pid_file.read_text())):
        if time.monotonic() > deadline:
            raise ShimError("the runtime wrote no pid file", subject=str(directory))
        time.sleep(0.005)
    return int(text)


def outcomes(process: "subprocess.Popen[str]") -> dict[int, int]:
    """Let the ``caller`` go on and give what each of its calls ended with."""
    output, errors = process.communicate("\n")
    if process.returncode:
        raise ShimError("the container failed", hint=" ".join(errors.split()))
    return {int(nr): int(code) for nr, code in map(str.split, output.splitlines())}


def _interpreter_root() -> str:
    """Return the top directory of the real interpreter, /usr but for one that a user built."""
    prefix = os.path.realpath(sys.base_prefix)
    return "/usr" if prefix.startswith("/usr") else prefix
