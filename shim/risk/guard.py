"""Run a command that attaches probes, only if nobody whom they meet would die."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, NoReturn

from shim import abi
from shim.errors import ShimError, printable
from shim.host import libc, processes
from shim.risk.containers import Running
from shim.risk.outlook import SAFE, Call
from shim.risk.scan import Scan, ScannedProcess, scan
from shim.risk.targets import Targets

_PAUSE = 0.25
# A process is looked at when it is new and again when it may have loaded its filter: a container's
# begins as its runtime.
_LOOKS = (0.0, 1.0, 5.0)
# Then, and who was there before, only if it has another filter by now, or is meant by now: at most
# one part in so many of the time goes into that.
_AGAIN = 5.0
_SHARE = 20
_YOUNG = 5.0
_LOOK_SECONDS = 10  # whoever is new meanwhile waits for it
_LINES = 20  # at once, and of new processes in a minute
_ENDED = ("Z", "X", "x")
_LOADED = ("Seccomp", "Seccomp_filters")


class Risk(NamedTuple):
    """Whom a probe may kill, and why."""

    pid: int
    started: str
    name: str
    why: str

    def __str__(self) -> str:
        """Return a line for a terminal."""
        return printable(f"{self.pid} {self.name}: {self.why}" if self.pid else self.why)


class Standing(NamedTuple):
    """What was seen of ``number`` processes.

    ``there`` are all that there were, ``loaded`` tells which filters those who are meant had.
    """

    number: int
    risks: list[Risk]
    there: set[int]
    loaded: dict[int, str]


def targets(pids: Sequence[int], group: Running | None, binary: str) -> Targets:
    """Return who is meant. ShimError: there is no such process or file."""
    for pid in pids:
        if not os.path.exists(f"/proc/{pid}"):
            raise ShimError("there is no such process", subject=str(pid))
    return Targets(pids, group.place if group else None, binary)


def survey(meant: Targets, asked: Sequence[Call]) -> Standing:
    """Look at those who are meant now. Nobody seen where somebody is named is a risk as well."""
    there = set(processes.pids())
    among = meant.among(there)
    loaded = {pid: _loaded(pid) for pid in among}
    found = scan(asked, pids=among, named=False, gone_is_error=False)
    risks = _risks(found, among, meant)
    seen = {one.process.pid for group in found.groups for one in group.seen}
    told = seen | {risk.pid for risk in risks}
    risks += [
        Risk(pid, "", "?", "it has ended, or cannot be seen")
        for pid in meant.named
        if pid not in told
    ]
    if meant.where and not seen and not risks:
        risks.append(Risk(0, "", "?", "no process of it can be seen"))
    return Standing(len(told | set(meant.named)), risks, there, loaded)


def _risks(found: Scan, among: Collection[int], meant: Targets) -> list[Risk]:
    """Return whom a probe may kill on this kernel: not knowing counts as well."""
    names = [call.name for call in found.calls if found.decides(call.name)]
    seen = {one.process.pid: one for group in found.groups for one in group.seen}
    risks = [
        Risk(one.process.pid, one.process.started, one.process.name, _why(one, name))
        for one in seen.values()
        for name in [name for name in names if one.outlooks[name].outcome != SAFE][:1]
    ]
    for pid in among:
        if pid not in seen and pid != os.getpid() and _lives(pid):
            risks.append(Risk(pid, "", "?", "it cannot be seen"))
    why = f"whether it maps {meant.binary} cannot be found out in time"
    risks += [Risk(pid, started, "?", why) for pid, started in meant.silent.items()]
    return risks if names else []


def _why(one: ScannedProcess, call: str) -> str:
    outlook = one.outlooks[call]
    told = {"dies": f"would die of {outlook.signal}", "unread": "not read"}
    return f"{told.get(outlook.outcome, outlook.outcome)}: {outlook.why}"


def _lives(pid: int) -> bool:
    """Tell whether any thread of a process has not ended."""
    try:
        status = processes.status_of(pid, ("State", "Threads"))
        return status["State"][0] not in _ENDED or status["Threads"] != ["1"]
    except (OSError, LookupError):
        return False


def _loaded(pid: int) -> str:
    """Return what is another text once a process has loaded a filter, or is another process."""
    try:
        status = processes.status_of(pid, _LOADED)
        return f"{processes.started(pid)} {[status.get(key) for key in _LOADED]}"
    except (OSError, LookupError):
        return ""


def exec_command(command: Sequence[str]) -> NoReturn:
    """Run ``command`` in our place. ShimError: it cannot be started."""
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - the command is the caller's own
    except OSError as error:
        raise ShimError(error.strerror or "cannot be started", subject=command[0]) from None


def watched(
    command: Sequence[str],
    meant: Targets,
    asked: Sequence[Call],
    before: Standing,
    tell: Callable[[str], object],
) -> int:
    """Run ``command`` to its end and give its exit status; ``tell`` of new ones that may die.

    ``before`` is what was seen. A child of ours looks, so that no process keeps us from the
    command. ShimError, OSError: it, or the child, cannot be started.
    """
    watch = _Watch(meant, asked, before, tell)
    us = os.getpid()
    reader, writer = os.pipe()
    watcher = os.fork()
    if watcher == 0:
        try:
            os.close(writer)
            _watch(watch, us, reader)
        finally:
            os._exit(1)
    os.close(reader)
    try:
        return _run(command, watcher, writer, tell)
    finally:
        os.kill(watcher, signal.SIGKILL)
        os.waitpid(watcher, 0)


def _run(command: Sequence[str], watcher: int, writer: int, tell: Callable[[str], object]) -> int:
    """Run the command beside ``watcher``, which learns its number from ``writer``."""
    try:
        child = subprocess.Popen(list(command))
    except OSError as error:
        raise ShimError(error.strerror or "cannot be started", subject=command[0]) from None
    # An interrupt is meant for the command, which has got it too; other signals are handed on.
    handlers = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        handlers[number] = signal.signal(number, lambda sig, _: child.send_signal(sig))
    try:
        os.write(writer, str(child.pid).encode())
        os.close(writer)
        watching = True
        while True:
            try:
                child.wait(_PAUSE)
                break
            except subprocess.TimeoutExpired:
                if watching and os.waitid(os.P_PID, watcher, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    watching = False
                    tell("nobody looks at new processes any more")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _watch(watch: "_Watch", parent: int, reader: int) -> None:
    """Look at who is new as long as ``parent`` lives; the command's number comes from it."""
    libc.prctl(abi.PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    if os.getppid() != parent or not (command := os.read(reader, 16)):
        return
    watch.us = {parent, os.getpid(), int(command)}
    while True:
        watch.look_safely()
        time.sleep(_PAUSE)


class _Watch:
    """Who is new, and was looked at how often; who is ``old`` is looked at again if it changes."""

    def __init__(
        self, meant: Targets, asked: Sequence[Call], before: Standing, tell: Callable[[str], object]
    ) -> None:
        self.meant = meant
        self.asked = asked
        self.tell = tell
        self.us: set[int] = set()
        self.loaded = before.loaded
        self.told = {(risk.pid, risk.started) for risk in before.risks}
        now = time.monotonic()
        # A process that is there and new may not have loaded its filter yet.
        self.new = {pid: (now, 1) for pid in before.there if _is_young(pid)}
        self.old = before.there - self.new.keys()
        self.again = now + _AGAIN
        self.lines = _Lines(tell)
        self.failure = ""

    def look_safely(self) -> None:
        """Standing; what keeps us from it is told once, and the next look may go well."""
        try:
            self.survey()
            self.failure = ""
        except (OSError, ShimError, ValueError) as error:
            if str(error) != self.failure:
                self.failure = str(error)
                self.tell(f"new processes could not be looked at: {printable(self.failure)}")

    def survey(self) -> None:
        """Look at those who are new, and tell of whom a probe may kill."""
        there, now = set(processes.pids()) - self.us, time.monotonic()
        self.old &= there  # a number that was free in between is somebody else's
        self.new = {pid: self.new.get(pid, (now, 0)) for pid in there - self.old}
        self.loaded = {pid: loaded for pid, loaded in self.loaded.items() if pid in there}
        self.told = {key for key in self.told if key[0] in there}
        due = {pid for pid, (since, looks) in self.new.items() if now >= since + _LOOKS[looks]}
        again = self.old if now >= self.again else set()
        if due or again:
            self._look_at(due, again)
        for pid in due:
            since, looks = self.new[pid]
            if looks + 1 == len(_LOOKS):
                self.old.add(pid)
            else:
                self.new[pid] = (since, looks + 1)
        if again:
            took = time.monotonic() - now
            self.again = now + took + max(_AGAIN, _SHARE * took)
        self.lines.end()

    def _look_at(self, due: set[int], again: set[int]) -> None:
        """Look at all of ``due``, and at those of ``again`` who have changed."""
        loaded = {pid: _loaded(pid) for pid in self.meant.among(due | again)}
        wanted = [pid for pid, now in loaded.items() if pid in due or now != self.loaded.get(pid)]
        found = scan(
            self.asked, pids=wanted, named=False, gone_is_error=False, seconds=_LOOK_SECONDS
        )
        self.loaded |= {pid: loaded[pid] for pid in wanted}
        for risk in _risks(found, wanted, self.meant):
            if (risk.pid, risk.started) not in self.told:
                self.told.add((risk.pid, risk.started))
                self.lines.add(f"a new process would die, or may: {risk}")


def _is_young(pid: int) -> bool:
    try:
        ticks = int(processes.started(pid))
    except (OSError, LookupError, ValueError):
        return False
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return age < _YOUNG


class _Lines:
    """Lines, of which so many are told in a minute and the rest is counted."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._since = time.monotonic()
        self._said = self._more = 0

    def add(self, line: str) -> None:
        """Tell a line, or count it."""
        if self._said < _LINES:
            self._tell(line)
            self._said += 1
        else:
            self._more += 1

    def end(self) -> None:
        """Tell how many were not told, the first time at once and then each minute."""
        if self._more and self._said == _LINES:
            self._tell(f"more new processes would die, or may: {self._more} so far")
            self._said += 1
            self._more = 0
        if time.monotonic() >= self._since + 60:
            if self._more:
                self._tell(f"more new processes would die, or may: {self._more} since")
            self._since = time.monotonic()
            self._said = self._more = 0
