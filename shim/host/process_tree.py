"""Follow a program and all that it starts with ptrace(2), and single out one of its processes.

Nobody is stopped but at a fork, a clone, an exec or a signal, and nothing is changed: if the tracer
ends at any moment, the kernel lets all of them go on as if nobody had looked.
"""

import time

from shim import abi
from shim import lightos as os
from shim.host import lightctypes as ctypes
from shim.host.libc import ptrace
from shim.host.processes import status_of
from shim.host.ptrace import (
    START_SECONDS,
    EndedError,
    Tracee,
    is_stop,
    resumption,
    seize,
    wait_for,
)

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
# A thread stops within microseconds of being told to, on a busy machine within a few turns.
_RELEASE_SECONDS = 10


class Family:
    """Process ``root``, seized while it has one thread, and all threads and processes it starts."""

    __slots__ = ("members", "options", "root", "unserved")

    def __init__(self, root: int, options: int = 0) -> None:
        self.root = root
        self.options = options
        self.members = {root}
        self.unserved = (0, 0)  # who was waited for last, and is not let on yet
        seize(root, _EVENTS | options, START_SECONDS)

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
            self.unserved = wait_for(-1, until)
        except ChildProcessError:
            raise EndedError("the runtime ended before anything loaded a filter") from None
        return self.unserved

    def serve(self, pid: int, status: int) -> None:
        """Let ``pid`` go on from the stop that ``status`` tells of."""
        if self._keep(pid, status):
            signal, listen = resumption(status)
            _ask(listen or abi.PTRACE_CONT, pid, signal)
        self.unserved = (0, 0)

    def release(self, but: int = 0, seconds: float = _RELEASE_SECONDS) -> None:
        """Let go of all ``but`` one for good, as they are: running, stopped, about to be born.

        The tracer's end does the same without a stop, but for those whose option is to die with it.
        TimeoutError: some have not stopped within ``seconds``, and are held still.
        """
        until = time.monotonic() + seconds
        pid, status = self.unserved  # what came between has left it stopped: it tells of no stop
        for each in self.members - {but}:
            self._interrupt(each)
        while True:
            known = set(self.members)
            if pid != but and self._keep(pid, status):
                for new in self.members - known - {pid}:
                    self._interrupt(new)
                if _ask(abi.PTRACE_DETACH, pid, resumption(status)[0]):
                    self.members.discard(pid)  # else it was killed, and its end is told
            if not self.members - {but}:
                return
            try:
                pid, status = self.wait(until)
            except EndedError:
                return
            except TimeoutError:
                self._detach_stopped(but)
                return

    def _detach_stopped(self, but: int) -> None:
        """Let go of those whose stop was waited for by somebody who then lost what he was told.

        An alarm's exception can come before waitpid() has given its result away.
        """
        for pid in self.members - {but}:
            if _ask(abi.PTRACE_DETACH, pid):
                self.members.discard(pid)
        if self.members - {but}:
            raise TimeoutError("some threads of the runtime do not stop, and cannot be let go")

    def _keep(self, pid: int, status: int) -> bool:
        """Keep account of who is traced; tell whether ``pid`` waits to be let on."""
        if not is_stop(status):
            self.members.discard(pid)
            return False
        if status >> 16 in _BIRTHS:
            self.members.add(_event_message(pid))
        elif status >> 16 == abi.PTRACE_EVENT_EXEC:
            # The thread had another number if it was not the first; its end is told by nothing.
            self.members.discard(_event_message(pid))
        self.members.add(pid)
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
                self.family.unserved = (0, 0)  # it is we who let it on
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
    """Return the process (thread group) that thread ``tid`` is of, 0 if it is gone."""
    try:
        return int(status_of(tid, ("Tgid",))["Tgid"][0])
    except (FileNotFoundError, ProcessLookupError):
        return 0
