"""Podman: whether it answers, and a container as it makes them by default.

It is given storage of its own in a temporary directory. Its settings, its runtime and its default
profile are the host's; images, containers and locks of the host's are left out of it.
"""

import glob
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from shim.engines import oci
from shim.errors import ShimError, printable
from shim.health.calls import Observation, observed
from shim.health.docker import NAMED, SLEEP, running
from shim.health.runtimes import reason
from shim.host import processes
from shim.host.runtimes import find

_CLEAN_SECONDS = 10
# Directories that podman, where it manages cgroups itself, and the runtimes make and leave.
_LEFT = (
    *("/sys/fs/cgroup/libpod_parent", "/sys/fs/cgroup/libpod_parent/*/"),
    *("/sys/fs/cgroup/*/libpod_parent", "/sys/fs/cgroup/*/libpod_parent/*/"),
    *("/run/runc", "/run/crun"),
)


def place() -> str:
    """Return the path of podman, empty if it is not there."""
    return find("podman")


def version(path: str, seconds: float) -> str:
    """Ask podman for its version. OSError, ShimError: it does not answer, or with an error."""
    with _own(path) as (directory, command):
        words = ["info", "--format", "{{.Version.Version}}"]
        return _run(directory, [*command, *words], time.monotonic() + seconds).strip()


def runtime(path: str, seconds: float) -> str:
    """Return the path of what podman runs containers by. OSError, ShimError: it does not say."""
    with _own(path) as (directory, command):
        words = ["info", "--format", "{{.Host.OCIRuntime.Path}}"]
        return _run(directory, [*command, *words], time.monotonic() + seconds).strip()


def observe(path: str, seconds: float) -> Observation:
    """Start a container with podman's default profile and look at its filter."""
    deadline = time.monotonic() + seconds
    try:
        with started(path, seconds, SLEEP) as (pid, _):
            running(pid, "sleep", deadline)
            return observed(pid)
    except (OSError, ShimError) as error:
        return Observation(False, printable(NAMED.sub("...", str(error))), {})


@contextmanager
def started(
    path: str, seconds: float, command: Sequence[str], asked: Sequence[str] = ()
) -> Iterator[tuple[int, Callable[[], int | None]]]:
    """Run ``command``, of the host's /usr, in a container with all of podman's defaults.

    ``asked`` are global options in place of them.
    Yield its process and what tells its exit status, None while it runs. It is gone afterwards.
    OSError, ShimError: it did not start.
    """
    deadline = time.monotonic() + seconds
    name = f"seccomp-shim-look-{uuid.uuid4().hex[:8]}"
    with _own(path, *asked) as (directory, own):
        oci.bundle(directory, None, [])
        words = ["run", "--detach", "--name", name, "--pidfile", f"{directory}/pid"]
        words += ["--network", "none", "--ulimit", "host", "--log-driver", "none"]
        # Nobody has labelled the root for containers.
        words += ["--security-opt", "label=disable", "--volume", "/usr:/usr:ro"]

        def code() -> int | None:
            told = [*own, "inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", name]
            runs, status = _run(directory, told, deadline).split()
            return None if runs == "true" else int(status)

        try:
            _run(directory, [*own, *words, "--rootfs", f"{directory}/rootfs", *command], deadline)
            yield oci.read_pid(directory), code
        finally:
            with suppress(OSError, ShimError):
                words = ["rm", "--force", "--time", "0", name]
                _run(directory, [*own, *words], time.monotonic() + _CLEAN_SECONDS)


@contextmanager
def _own(path: str, *asked: str) -> Iterator[tuple[Path, list[str]]]:
    """Yield a directory, and the command that has podman keep everything in it."""
    before = _left()
    with TemporaryDirectory(prefix="seccomp-shim-look-", ignore_cleanup_errors=True) as name:
        command = [path, "--root", f"{name}/root", "--runroot", f"{name}/run"]
        command += ["--tmpdir", f"{name}/passing"]
        command += ["--storage-driver", "vfs", "--events-backend", "none", *asked]
        try:
            yield Path(name), command
        finally:
            _wait_for_all(name)
    for each in sorted(_left() - before, reverse=True):
        with suppress(OSError):
            os.rmdir(each)


def _wait_for_all(name: str) -> None:
    """Wait for what podman has left in the background, which would make the directory anew.

    Its conmon cleans up behind a container, with yet another podman; all have the directory
    ``name`` among their words. What does not end is killed.
    """
    deadline = time.monotonic() + _CLEAN_SECONDS
    while pids := _naming(name):
        if time.monotonic() > deadline:
            for pid in pids:
                _kill(pid, name)
            return
        time.sleep(0.02)


def _kill(pid: int, name: str) -> None:
    """Kill process ``pid`` if it is still one that has ``name`` among its words."""
    with suppress(OSError):
        held = os.pidfd_open(pid)
        try:
            # Whoever has the number from now on, the descriptor is this process's.
            if _names(pid, name):
                signal.pidfd_send_signal(held, signal.SIGKILL)
        finally:
            os.close(held)


def _naming(name: str) -> list[int]:
    """Return the processes whose command lines have ``name`` in them."""
    return [pid for pid in processes.pids() if _names(pid, name)]


def _names(pid: int, name: str) -> bool:
    with suppress(OSError):
        return any(name in word for word in processes.command_line(pid))
    return False


def _left() -> set[str]:
    return {found for pattern in _LEFT for found in glob.glob(pattern)}


def _run(directory: Path, command: list[str], deadline: float) -> str:
    """Return what a podman prints. OSError, ShimError: it says no, or nothing in time."""
    out, errors = directory / "out", directory / "errors"
    # Files, not pipes: what podman leaves in the background would keep those open.
    with out.open("wb") as told, errors.open("wb") as wrong:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=wrong,
                timeout=max(0.01, deadline - time.monotonic()),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError("it takes too long") from None
    if done.returncode:
        said = errors.read_text(encoding="utf-8", errors="replace")
        raise ShimError(reason(said, done.returncode, str(directory)))
    return out.read_text(encoding="utf-8", errors="replace")
