"""Follow a program and all that it starts with ptrace(2), and single out one of its processes.

Nobody is stopped but at a fork, a clone, an exec or a signal, and nothing is changed: if the tracer
ends at any moment, the kernel lets all of them go on as if nobody had looked.
"""

import ctypes
import os

from shim import abi
from shim.host.libc import ptrace
from shim.host.ptrace import EndedError, Tracee, is_stop, resumption, wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_BIRTHS = (abi.PTRACE_EVENT_FORK, abi.PTRACE_EVENT_VFORK, abi.PTRACE_EVENT_CLONE)
_EVENTS = (
    abi.PTRACE_O_TRACEFORK
    | abi.PTRACE_O_TRACEVFORK
    | abi.PTRACE_O_TRACECLONE
    | abi.PTRACE_O_TRACEEXEC
)


class Family:
    """Process ``root``, seized while it has one thread, and all threads and processes it starts."""

    __slots__ = ("members", "options", "root")

    def __init__(self, root: int, options: int = 0) -> None:
        self.root = root
        self.options = options
        self.members = {root}
        ptrace(abi.PTRACE_SEIZE, root, 0, _EVENTS | options)

    def threaded_child(self, wanted: "Callable[[int], bool]") -> "Member":
        """Run on until a ``wanted`` process, not the root, makes its first thread; give that one.

        EndedError: there was none.
        """
        while True:
            pid, status = self.wait()
            if status >> 16 == abi.PTRACE_EVENT_CLONE and self._first_thread_of(pid, wanted):
                return Member(self, pid)
            self.serve(pid, status)

    def wait(self, until: float = 0.0) -> "tuple[int, int]":
        """Wait until any of them has stopped or ended: which one, and its wait status.

        ``until`` as of ``wait_for``.
        """
        try:
            return wait_for(-1, until)
        except ChildProcessError:
            raise EndedError("the runtime ended before anything loaded a filter") from None

    def serve(self, pid: int, status: int) -> None:
        """Let ``pid`` go on from the stop that ``status`` tells of."""
        if not self._keep(pid, status):
            return
        signal, listen = resumption(status)
        _ask(listen or abi.PTRACE_CONT, pid, signal)

    def release(self, but: int = 0) -> None:
        """Let go of all ``but`` one for good, as they are: running, stopped, about to be born.

        The tracer's end does the same without a stop, but for those whose option is to die with it.
        """
        for pid in self.members - {but}:
            self._interrupt(pid)
        while self.members - {but}:
            try:
                pid, status = self.wait()
            except EndedError:
                return
            known = set(self.members)
            if self._keep(pid, status) and pid != but:
                for new in self.members - known - {pid}:
                    self._interrupt(new)
                _ask(abi.PTRACE_DETACH, pid, resumption(status)[0])
                self.members.discard(pid)

    def _keep(self, pid: int, status: int) -> bool:
        """Keep account of who is traced; tell whether ``pid`` waits to be let on."""
        if not is_stop(status):
            self.members.discard(pid)
            return False
        self.members.add(pid)
        if status >> 16 in _BIRTHS:
            self.members.add(_event_message(pid))
        return True

    def _interrupt(self, pid: int) -> None:
        if not _ask(abi.PTRACE_INTERRUPT, pid):
            self.members.discard(pid)  # gone with the exec of another thread of its process

    def _first_thread_of(self, pid: int, wanted: "Callable[[int], bool]") -> bool:
        if os.path.exists(f"/proc/{self.root}/task/{pid}") or not wanted(pid):
            return False
        return _process_of(pid) == pid == _process_of(_event_message(pid))


class Member(Tracee):
    """One process of a family, stopped at its first clone; waiting for it serves the others."""

    __slots__ = ("family",)

    def __init__(self, family: Family, pid: int) -> None:
        self.family = family
        self.pid = pid
        self.stops = 1
        self.entered = False
        self.signal = 0
        family.members |= {pid, _event_message(pid)}
        options = abi.PTRACE_O_TRACESYSGOOD | abi.PTRACE_O_TRACEEXEC | family.options
        ptrace(abi.PTRACE_SETOPTIONS, pid, 0, options)

    def detach(self) -> None:
        """Let it go on, untraced."""
        super().detach()
        self.family.members.discard(self.pid)

    def _wait(self, until: float = 0.0) -> int:
        while True:
            pid, status = self.family.wait(until)
            if pid == self.pid:
                return self._stopped(status)
            self.family.serve(pid, status)


def _ask(request: int, pid: int, data: int = 0) -> bool:
    """Make a request of which a tracee that is being killed knows nothing any more."""
    try:
        ptrace(request, pid, 0, data)
    except ProcessLookupError:
        return False
    return True


def _event_message(pid: int) -> int:
    message = ctypes.c_ulong()
    _ask(abi.PTRACE_GETEVENTMSG, pid, ctypes.addressof(message))
    return message.value


def _process_of(tid: int) -> int:
    """Give the process (thread group) that thread ``tid`` is of, 0 if it is gone."""
    try:
        with open(f"/proc/{tid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("Tgid:"):
                    return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
