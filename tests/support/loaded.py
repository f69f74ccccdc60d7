"""What a real runtime really loads for a profile, read from the kernel as it is installed.

The runtime may be the machine's own, or one of another user land's tree, run by chroot on this
kernel. A hook of the container, a few words of shell, waits until its init is traced.
"""

import json
import os
import select
import subprocess
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from shim.host.ptrace import GoneError, Tracee, is_stop, wait_for
from shim.profile.model import Loader
from shim.start.inject.follow import next_load

_SECONDS = 20
# The work directory is the tree's /mnt; nothing is written to the tree itself.
_CHROOT = """
mount --bind "$1" "$1"
mount --rbind /proc "$1/proc"; mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"; mount -t tmpfs none "$1/run"
mount --bind "$2" "$1/mnt"
root=$1; shift 2
case $1 in *crun) mount -t cgroup2 none "$root/sys/fs/cgroup";; esac
exec chroot "$root" "$@"
"""


class Loaded(NamedTuple):
    """The program that the kernel keeps, empty for none, and the flags that it was given."""

    program: bytes
    flags: int


class RefusedError(Exception):
    """The runtime did not start the container; the text is what it said."""


@dataclass(frozen=True)
class Real:
    """The runtime ``path`` of the user land in ``root``, with a work ``directory`` of its own."""

    folder: Path
    path: str
    root: Path = Path("/")

    def __post_init__(self) -> None:
        """Lay out a bundle whose program is never reached."""
        program = self.folder / "bundle/rootfs/x"
        program.parent.mkdir(parents=True)
        program.write_bytes(b"")
        program.chmod(0o755)
        for name in ("proc", "dev", "sys"):
            (program.parent / name).mkdir()
        for name in ("ready", "go"):
            os.mkfifo(self.folder / name)

    @property
    def loader(self) -> Loader:
        """Say what the runtime is, as the tool would ask it."""
        output = self._run("--version").stdout
        program, _, version, *_ = output.split()
        library = next(
            (line.split()[1] for line in output.splitlines() if line.startswith("libseccomp:")), ""
        )
        if not library:
            links = self.root / "usr/lib/x86_64-linux-gnu/libseccomp.so.2"
            library = os.path.realpath(links).rpartition(".so.")[2]
        return Loader(program, version, library)

    def load(
        self, seccomp: dict[str, Any] | None, annotations: Mapping[str, str] | None = None
    ) -> Loaded:
        """Start a container up to where its filter is installed; RefusedError: it got none."""
        self._write(seccomp, annotations or {})
        ident = f"shim-loaded-{uuid.uuid4().hex[:12]}"
        place = self._inside
        # crun keeps filters under a sum that leaves errno values out: a directory for each.
        state = ["--root", f"{place}/{ident}"]
        words = [*state, "run", "--bundle", f"{place}/bundle", ident]
        process = subprocess.Popen(
            self._command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        tracee = None
        # Open for both, so that neither side waits for the other's and no word is lost.
        ready, go = (os.open(self.folder / name, os.O_RDWR) for name in ("ready", "go"))
        try:
            tracee = _seized(process, ready)
            os.write(go, b"go\n")
            return _follow(tracee)
        except (GoneError, ProcessLookupError):  # ended by another: what it said tells
            _end(tracee)
            output, tracee = process.communicate(timeout=_SECONDS)[0], None
            if "ormat" in output:  # no filter, so that the empty program was reached
                return Loaded(b"", 0)
            raise RefusedError(output.strip()[-300:]) from None
        finally:
            _end(tracee)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_SECONDS)
            process.kill()
            process.communicate()
            self._run(*state, "delete", "--force", ident)
            os.close(ready)
            os.close(go)

    @property
    def _inside(self) -> str:
        return str(self.folder) if self.root == Path("/") else "/mnt"

    def _command(self, *words: str) -> list[str]:
        crun = self.path.endswith("crun")
        command = [self.path, *(["--cgroup-manager=disabled"] if crun else []), *words]
        if self.root == Path("/"):
            from shim.engines import oci

            return oci.command(self.path, *words)
        script = ["unshare", "--mount", "sh", "-ec", _CHROOT, "sh"]
        return [*script, str(self.root), str(self.folder), *command]

    def _run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self._command(*words), capture_output=True, text=True, check=False)

    def _write(self, seccomp: dict[str, Any] | None, annotations: Mapping[str, str]) -> None:
        place = self._inside
        wait = f"cat >{place}/ready; read word <{place}/go"
        linux: dict[str, Any] = {"namespaces": [{"type": "pid"}, {"type": "mount"}]}
        if seccomp is not None:
            linux["seccomp"] = seccomp
        config = {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/x"], "env": ["A=b"]},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            ],
            "hooks": {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", wait]}]},
            "annotations": dict(annotations),
            "linux": linux,
        }
        (self.folder / "bundle/config.json").write_text(json.dumps(config))


def _seized(process: "subprocess.Popen[str]", ready: int) -> Tracee:
    """Wait for the hook and seize the init that it tells of; RefusedError: it was not called."""
    for _ in range(_SECONDS * 50):
        if select.select([ready], [], [], 0.02)[0]:
            return Tracee(json.loads(os.read(ready, 65536))["pid"])
        if process.poll() is not None:
            break
    raise RefusedError(process.communicate()[0].strip()[-300:])


def _end(tracee: Tracee | None) -> None:
    """Kill a tracee and take note of its end, of which its parent learns only then."""
    with suppress(ProcessLookupError, ChildProcessError):
        if tracee:
            os.kill(tracee.pid, 9)
            while is_stop(wait_for(tracee.pid)[1]):
                pass


def _follow(tracee: Tracee) -> Loaded:
    while True:
        _, flags, _ = next_load(tracee)
        if tracee.result() >= 0:
            return Loaded(tracee.filters()[0], flags)
