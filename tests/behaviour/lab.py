"""A view of the host in which a runtime is called bare or through the wrapper."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shim.host import cache
from support import host, leftovers
from support.containers import TEST_SYSCALL
from support.wrapped import WrappedLab

SETTINGS = ("allow", "deny", "test_syscall", "pass-through")
RUNTIMES = ("runc", "crun")
IDENT = f"behaviour-{os.getpid()}"
TRIES = 3
SECONDS = 60  # nothing that is started here takes as long, on a busy machine either


@dataclass
class Lab:
    """One runtime, bare or wrapped; ``setting`` is empty for the bare one.

    ``enter`` brings a command into the view of the host. All that a runtime prints and leaves is
    gathered in ``seen``: an aspect's name to its text, so that two labs can be compared.
    """

    folder: Path
    runtime: str
    setting: str
    enter: list[str]
    wrapped: WrappedLab
    seen: dict[str, str] = field(default_factory=dict)
    user: int = 0

    @property
    def name(self) -> str:
        """Which runtime it is."""
        return os.path.basename(self.wrapped.real)

    @property
    def root(self) -> Path:
        """The runtime's directory of states."""
        return self.folder / "root"

    def command(self, *words: str) -> list[str]:
        """Return the command line of the runtime with ``words``."""
        cgroups = ["--cgroup-manager=disabled"] if self.name == "crun" else []
        chdir = f"--wdns={self.folder}"
        become = []
        if self.user:
            ids = [f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
            become = ["setpriv", *ids]
        return [
            *self.enter,
            chdir,
            *become,
            self.runtime,
            "--root",
            str(self.root),
            *cgroups,
            *words,
        ]

    def call(
        self,
        step: str,
        *words: str,
        data: str | None = "typed\n",
        seconds: int = SECONDS,
        **options: Any,
    ) -> int | None:
        """Call the runtime and note how it ended and what it printed; None where it hung.

        What it starts may keep its output open for longer: that goes to files, read when asked for.
        """  # fmt: skip
        source = self.folder / "input"
        source.write_text(data or "")
        with contextlib.ExitStack() as stack:
            streams: dict[str, Any] = {}
            if "stdin" not in options:
                streams["stdin"] = stack.enter_context(source.open())
                for name in ("stdout", "stderr"):
                    path = self.folder / f"{step}.{name}"
                    streams[name] = stack.enter_context(path.open("wb"))
            process = subprocess.Popen(
                self.command(*words), start_new_session=True, **(streams | options)
            )
            try:
                code: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = None
        self.seen[f"{step}.status"] = "it hangs" if code is None else str(code)
        return code

    def read_streams(self, *steps: str) -> None:
        """Note what has been printed by now in ``steps``."""
        for step in steps:
            for name in ("stdout", "stderr"):
                path = self.folder / f"{step}.{name}"
                if path.exists():
                    self.seen[f"{step}.{name}"] = path.read_bytes().decode(errors="replace")
                    path.unlink()

    def ask_state(self, step: str, ident: str) -> None:
        """Note what the runtime's ``state`` says, each member by itself."""
        command = self.command("state", ident)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.seen[f"{step}.exit"] = str(done.returncode)
        self.seen[f"{step}.stderr"] = done.stderr
        self.note_json(step, done.stdout)

    def note_json(self, step: str, text: str) -> None:
        """Note the members of a document by themselves; what is none as it stands."""
        try:
            document = json.loads(text)
        except ValueError:
            self.seen[step] = text
            return
        self.seen |= flat(step, document)

    def delete(self, ident: str) -> None:
        """Delete a container with force, if it is there."""
        self.call("delete", "delete", "--force", ident)
        self.read_streams("delete")

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Return the audit log's lines of some kinds."""
        return [line for line in self.wrapped.log() if line["event"] in names]

    def note_processes(self) -> None:
        """Note what is left of a start after a while, and end it: crun itself leaves some."""
        deadline = time.monotonic() + _LINGER
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.01)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGKILL)
        self.seen["left.processes"] = str(len(left))

    def _processes(self) -> list[int]:
        """Return the processes that were started with our directory of states.

        The runtime, its container's first process, and a tracer of ours all have it among their
        arguments.
        """
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.root).encode() in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def note_alarms(self) -> None:
        """Note what the audit log has as wrong: a bare runtime has no such thing."""
        alarms = [
            f"{line['event']}: {line.get('reason', '')}"
            for line in self.wrapped.log()
            if line["level"] == "error" or line.get("verified") is False
        ]
        self.seen["audit"] = "\n".join(alarms)


def flat(name: str, value: object) -> dict[str, str]:
    """Return a document's members by their dotted names; times and process ids are left out."""
    if isinstance(value, Mapping):  # an empty one is as good as none
        found: dict[str, str] = {}
        for key, inner in value.items():
            found |= flat(f"{name}.{key}", inner)
        return found
    last = name.rpartition(".")[2]
    if last in ("pid", "created", "creationTimestamp") and value:
        return {name: type(value).__name__}
    return {name: json.dumps(value)}


_LINGER = 3
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def normal(text: str) -> str:
    """Return ``text`` without what differs from one start to the next: times and process ids."""
    text = _TIME.sub("TIME", text)
    text = re.sub(r"(/proc/|pid[ :=\"]+|nsexec-\d\[)\d+", r"\1PID", text)
    # runc tries the controllers of a version 1 in the order of a Go map: none.
    text = re.sub(r"write \d+: openat2 /sys/fs/cgroup/[^:]*", "write PID: CGROUP", text)
    return re.sub(r"0x[0-9a-f]+", "ADDRESS", text)  # of a runtime that panics


@contextlib.contextmanager
def labs(folder: Path, runtime: str) -> Iterator[dict[str, Lab]]:
    """Make the bare lab (by the name of ``bare``) and one for each setting, which look alike."""
    found: dict[str, Lab] = {}
    with contextlib.ExitStack() as stack:
        # A runtime removes its container's cgroup, not those above it in a cgroupsPath.
        stack.callback(leftovers.remove_cgroups, IDENT)
        for affected in (True, False):
            scratch = folder / ("affected" if affected else "exempt")
            scratch.mkdir()
            view = stack.enter_context(host.throwaway(scratch))
            _prepare(view, runtime, affected)
            for setting in SETTINGS:
                if affected == (setting in ("allow", "deny")):
                    found[setting] = _lab(folder, runtime, setting, view)
            if affected:
                found["bare"] = _lab(folder, runtime, "", view)
        yield found


def _prepare(view: host.Host, runtime: str, affected: bool) -> None:
    """Have the kernel look as Linux 6.12.0, which kills containers, or as one that does not."""
    facts = json.loads(json.dumps(cache.facts()))
    for name, call in facts["syscalls"].items():
        call["state"] = (
            "exempt" if not affected else "filtered" if name == "uretprobe" else "absent"
        )
    view.run("mkdir -m 755 -p /run/seccomp-shim; rm -f /run/seccomp-shim/*")
    place = f"{cache.DIRECTORY}/probe.json"
    view.run(f"cat >{place} <<'END'\n{json.dumps(facts)}\nEND\nchmod 644 {place}")
    if runtime == "crun" and not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        view.run("mount -t cgroup2 none /sys/fs/cgroup")  # as shim.engines.oci.command does


def _lab(folder: Path, runtime: str, setting: str, view: host.Host) -> Lab:
    own = folder / (setting or "bare")
    own.mkdir()
    real = shutil.which(runtime)
    assert real
    wrapped = WrappedLab(own, real, test_syscall=TEST_SYSCALL if setting == "test_syscall" else 0)
    wrapped.configure("deny" if setting == "deny" else "allow")
    work = folder / "work"
    work.mkdir(exist_ok=True)
    work.chmod(0o755)
    return Lab(work, wrapped.runtime if setting else real, setting, view.enter, wrapped)
