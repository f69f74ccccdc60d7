"""A container as a containerd makes it by its own default profile, by its client ctr.

It has a namespace of its own, which is removed with it.
"""

import glob
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from shim.engines import oci
from shim.errors import ShimError
from shim.health.grpc import CONTAINERD
from shim.host.runtimes import find

_CLEAN_SECONDS = 10


def place(environment: Mapping[str, str]) -> str:
    """Return the path of this host's containerd's socket; CONTAINERD_ADDRESS can name another."""
    return environment.get("CONTAINERD_ADDRESS", "").removeprefix("unix://") or CONTAINERD


@contextmanager
def started(
    path: str, seconds: float, command: Sequence[str], asked: Sequence[str] = ()
) -> Iterator[tuple[int, Callable[[], int | None]]]:
    """Run ``command``, of the host's /usr, in a container under containerd's default profile.

    ``asked`` are more options of ``ctr run``.
    Yield its process and what tells its exit status, None while it runs. It is gone afterwards.
    OSError, ShimError: it did not start.
    """
    ctr = find("ctr")
    if not ctr:
        raise ShimError("ctr is not on PATH", hint="it comes with containerd")
    name = f"seccomp-shim-look-{uuid.uuid4().hex[:8]}"
    client = [ctr, "--address", path, "--namespace", name]
    deadline = time.monotonic() + seconds
    with TemporaryDirectory(prefix="seccomp-shim-look-") as directory:
        oci.bundle(Path(directory), None, [])
        words = ["run", "--rootfs", "--seccomp", "--read-only", *asked]
        words += ["--mount", "type=bind,src=/usr,dst=/usr,options=rbind:ro"]
        with subprocess.Popen(
            [*client, *words, f"{directory}/rootfs", name, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield _pid(client, name, process, deadline), process.poll
            finally:
                _remove(client, name, process)


def _pid(client: list[str], name: str, process: "subprocess.Popen[str]", deadline: float) -> int:
    while process.poll() is None:
        for line in _said(client, "tasks", "list").splitlines():
            ident, pid, state, *_ = [*line.split(), "", "", ""]
            if ident == name and state == "RUNNING":
                return int(pid)
        if time.monotonic() > deadline:
            raise TimeoutError("it takes too long")
        time.sleep(0.05)
    said = process.stderr.read() if process.stderr else ""
    raise ShimError("the container did not start", hint=" ".join(said.split())[-300:])


def _remove(client: list[str], name: str, process: "subprocess.Popen[str]") -> None:
    _said(client, "tasks", "kill", "--signal", "KILL", name)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_CLEAN_SECONDS)
    process.kill()
    for words in (
        ("tasks", "delete", "--force", name),
        ("containers", "delete", name),
        ("namespaces", "remove", name),
    ):
        _said(client, *words)
    # containerd makes a cgroup of each namespace and leaves it; ctr's own option --cgroup knows
    # nothing of a unified hierarchy beside those of version 1.
    for each in ("/sys/fs/cgroup", *glob.glob("/sys/fs/cgroup/*/")):
        with suppress(OSError):
            os.rmdir(f"{each}/{name}")


def _said(client: list[str], *words: str) -> str:
    """Return what ctr prints; nothing where it says no."""
    try:
        done = subprocess.run(
            [*client, *words], capture_output=True, text=True, timeout=_CLEAN_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.returncode == 0 else ""
