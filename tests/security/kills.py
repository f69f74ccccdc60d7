"""Starts of one bundle in namespaces of their own, with a random part of each start killed.

Run as the first process of a PID namespace (``tests/security/test_random_kills.py``): what a start
leaves behind is what is there besides it. Prints what it found as JSON.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from shim.engines import oci
from support.containers import ENOSYS, EPERM, TEST_SYSCALL, Lab, profile
from support.wrapped import WrappedLab

# Who may be killed, and within how many milliseconds from when it is first seen.
VICTIMS = {
    "shell": 40,
    "python": 30,
    "tracer": 80,
    "hook": 8,
    "runtime": 80,
    "init": 80,
    "look": 80,
}
WAYS = {
    "runc-wrapper": tuple(VICTIMS),
    "crun-wrapper": ("shell", "python", "hook", "runtime", "init", "look"),
    "runc-hook": ("tracer", "hook", "runtime", "init"),
    "crun-hook": ("tracer", "hook", "runtime", "init"),
}
# By which word of a command line a part is known: the fronts are shell, and then Python.
_PARTS = {
    "start.runtime": "python",
    "start.hook": "hook",
    "/seccomp-shim-hook": "hook",
    "/hook\0--config": "hook",
    "start.verify": "look",
    "/seccomp-shim-verify": "hook",  # a runtime fails whose hook of any stage is killed
}
# Without these a container starts all the same, where the admin lets it.
_SPARED = {"python", "tracer", "look"}
_MEETINGS = Path("/run/seccomp-shim/start")
_SECONDS = 20
_GONE = (b"Z", b"X")


class Process:
    """What /proc tells of a process; empty of one that has ended."""

    def __init__(self, pid: int) -> None:
        """Read it."""
        self.pid = pid
        self.name, self.words, self.container = "", "", False
        with suppress(OSError):
            folder = Path(f"/proc/{pid}")
            self.words = (folder / "cmdline").read_bytes().decode(errors="replace")
            self.name = (folder / "comm").read_bytes().decode(errors="replace").strip()
            self.container = len(self.status("NSpid")) > 1

    def status(self, key: str) -> list[str]:
        """Return the words of one line of its status."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_bytes().decode().splitlines():
                name, _, value = line.partition(":")
                if name == key:
                    return value.split()
        return []

    def kind(self, started: int, real: str) -> str:
        """Return which part of a start it is, of one whose runtime has the number ``started``."""
        if self.container:
            return "init"
        if self.pid == started:
            if self.name == "seccomp-shim-ru":
                return "shell"
            return "runtime" if self.words.split("\0")[0] == real else ""
        if self.name.startswith("shim-"):
            return "tracer"
        return next((part for word, part in _PARTS.items() if word in self.words), "")

    def is_there(self) -> bool:
        """Tell whether it has not ended; one that only waits to be reaped has."""
        with suppress(OSError):
            state = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
            return state not in _GONE
        return False

    def kill(self) -> bool:
        """Kill it if it is still what it was."""
        with suppress(OSError):
            held = os.pidfd_open(self.pid)
            try:
                if Process(self.pid).words == self.words:
                    signal.pidfd_send_signal(held, signal.SIGKILL)
                    return True
            finally:
                os.close(held)
        return False

    def __str__(self) -> str:
        """Say which it is."""
        return f"process {self.pid} ({self.name}): {self.words[:200]!r}"


def others() -> list[Process]:
    """Return all processes of the namespace but ourselves."""
    numbers = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [Process(pid) for pid in numbers if pid != os.getpid()]


def mounts() -> dict[str, str]:
    """Return the lines of all mounts by their number.

    Some go that are none of ours: whose directory somebody removes outside the namespace.
    """
    return {line.split()[0]: line for line in Path("/proc/self/mountinfo").read_text().splitlines()}


class Killer(threading.Thread):
    """Kills some of the parts of one start, as they come up."""

    def __init__(self, started: int, real: str, plan: list[tuple[str, float]]) -> None:
        """Take the start's first process, and whom to kill how long after it has come up."""
        super().__init__()
        self.started, self.real, self.plan = started, real, plan
        self.hit: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Kill them one after the other."""
        for kind, delay in self.plan:
            while not (found := self._found(kind)) and not self.over.is_set():
                time.sleep(0.0002)
            time.sleep(delay if found else 0)
            if (again := self._found(kind)) and again[0].kill():
                self.hit.append(kind)

    def _found(self, kind: str) -> list[Process]:
        return [each for each in others() if each.kind(self.started, self.real) == kind]


class Starts:
    """Starts by one way; ``wrong`` says what they left behind."""

    def __init__(self, folder: Path, way: str, real: str, seed: int) -> None:
        """Render the executables, make the bundle."""
        self.way, self.seed = way, seed
        self.random = random.Random(f"{seed} {way}")  # noqa: S311 - to be had again
        self.lab: Lab = WrappedLab(folder, real) if way.endswith("wrapper") else Lab(folder, real)
        self.real = real
        self.bundle = folder / "bundle"
        self.bundle.mkdir()
        hooks = None if way.endswith("wrapper") else self.lab.hooks()
        oci.bundle(self.bundle, profile(), oci.caller((TEST_SYSCALL,)), hooks=hooks)
        self.text = (self.bundle / "config.json").read_text()
        self.mounts = mounts()
        self.hit: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.drafts = 0
        self.untidy: set[str] = set()  # whose runtime was killed: what is the runtime's may stay

    def go(self, count: int) -> None:
        """Make ``count`` starts, and at last one that nobody disturbs."""
        for number in range(count):
            on_error = "allow" if number < count // 2 else "deny"
            if number in (0, count // 2):
                self.lab.configure(on_error)
            kinds = WAYS[self.way]
            chosen = [kinds[number % len(kinds)]]
            if self.random.random() < 0.25:
                chosen.append(self.random.choice(kinds))
            plan = [(kind, self.random.random() * VICTIMS[kind] / 1000) for kind in chosen]
            if self.random.random() < 0.75:  # else the bundle of the start before, as it was left
                (self.bundle / "config.json").write_text(self.text)
            self.one(f"kills-{self.seed}-{self.way}-{number}", on_error, plan)
        self.lab.configure("allow")
        (self.bundle / "config.json").write_text(self.text)
        self.one(f"kills-{self.seed}-{self.way}-last", "deny", [])
        if _MEETINGS.exists() and (left := os.listdir(_MEETINGS)):
            self.wrong.append(f"rendezvous files are left: {left}")
        if more := set(os.listdir(self.bundle)) - {"rootfs", "config.json"}:
            self.wrong.append(f"{more} beside config.json")
        self.wrong += [f"mounted: {line}" for at, line in mounts().items() if at not in self.mounts]
        self.cgroups()
        self.logged()

    def one(self, name: str, on_error: str, plan: list[tuple[str, float]]) -> None:
        """Make one start and look what is left of it."""
        where = f"{name}, {on_error}, {plan}"
        words = oci.command(self.lab.runtime, "run", "--bundle", str(self.bundle), name)
        with open(self.bundle.parent / "errors", "w+") as errors:
            start = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0
            )
            killer = Killer(start.pid, self.real, plan)
            killer.start()
            told = self._told(start, killer)
            errors.seek(0)
            said = errors.read().strip()
        self.hit.update(killer.hit)
        if {"runtime", "init"} & set(killer.hit):
            self.untidy.add(name)
        ran = [
            int(line.split()[1])
            for line in told.splitlines()
            if line.startswith(f"{TEST_SYSCALL} ")
        ]
        self.ends["+".join(killer.hit) + f" {on_error}: {ran[0] if ran else 'none'}"] += 1
        if set(ran) - {ENOSYS} and on_error == "deny":
            self.wrong.append(f"{where}: ran unadjusted")
        if not set(ran) <= {ENOSYS, EPERM}:
            self.wrong.append(f"{where}: the call gave {ran}")
        if not ran and on_error == "allow" and set(killer.hit) <= _SPARED:
            self.wrong.append(f"{where}: {killer.hit} killed and it did not start: {said}")
        if not ran and not killer.hit:
            self.wrong.append(f"{where}: it did not start: {said}")
        self._delete(name)
        self._left(where)

    def _told(self, start: "subprocess.Popen[bytes]", killer: Killer) -> str:
        """Let the program go on once nobody holds it; return what it printed."""
        assert start.stdin is not None
        assert start.stdout is not None
        guard = threading.Timer(_SECONDS, self._hangs, [killer.plan])
        guard.start()
        told = start.stdout.read(6)
        # The look comes after the program has begun, and nobody else that is waited for.
        time.sleep(0.15 if told and any(kind == "look" for kind, _ in killer.plan) else 0)
        killer.over.set()
        killer.join()
        deadline = time.monotonic() + _SECONDS / 2
        while held := [p for p in others() if p.container and p.status("TracerPid") > ["0"]]:
            if time.monotonic() > deadline:
                self.wrong.append(f"{killer.plan}: {held[0]} is held")
                break
            time.sleep(0.002)
        with suppress(BrokenPipeError):
            start.stdin.write(b"\n")
        while part := start.stdout.read(4096):
            told += part
        start.stdin.close()
        start.stdout.close()
        start.wait()
        guard.cancel()
        return told.decode()

    def _hangs(self, plan: object) -> None:
        """Say who is still there, and end it."""
        there = [each for each in others() if each.is_there()]
        self.wrong.append(f"{plan}: it hangs: {'; '.join(map(str, there))}")
        for each in there:
            each.kill()

    def _delete(self, name: str) -> None:
        folder = Path("/run", os.path.basename(self.real), name)
        if folder.exists():
            command = oci.command(self.real, "delete", "--force", name)
            subprocess.run(command, capture_output=True, check=False)

    def _left(self, where: str) -> None:
        """See that no process is left, and a whole config.json."""
        deadline = time.monotonic() + _SECONDS
        while there := [each for each in others() if each.is_there()]:
            if time.monotonic() > deadline:
                self.wrong += [f"{where}: left behind: {each}" for each in there]
                for each in there:
                    each.kill()
                break
            time.sleep(0.002)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        for name in set(os.listdir(self.bundle)) - {"rootfs", "config.json"}:
            self.drafts += 1
            os.utime(self.bundle / name, (0, 0))  # old enough for the next start to remove it
        try:
            json.loads((self.bundle / "config.json").read_text())
        except ValueError as error:
            self.wrong.append(f"{where}: config.json: {error}")

    def cgroups(self) -> None:
        """See that no cgroup is left but of a runtime that was killed itself; remove those."""
        for folder, _, _ in os.walk("/sys/fs/cgroup", topdown=False):
            name = os.path.basename(folder)
            if name.startswith(f"kills-{self.seed}-{self.way}-"):
                if name not in self.untidy:
                    self.wrong.append(f"cgroup {folder} is left")
                os.rmdir(folder)

    def logged(self) -> None:
        """See that each line of the log is whole."""
        text = self.lab.log_path.read_text()
        for line in text.splitlines():
            try:
                json.loads(line)
            except ValueError:
                self.wrong.append(f"torn: {line}")
        if not text.endswith("\n"):
            self.wrong.append("the log's last line has no end")


def main(folder: str, way: str, real: str, count: str, seed: str) -> None:
    """Make the starts; print what was found."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    starts = Starts(Path(folder), way, real, int(seed))
    starts.go(int(count))
    found = {"hit": starts.hit, "ends": starts.ends, "drafts": starts.drafts, "wrong": starts.wrong}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
