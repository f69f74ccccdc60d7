"""Follow one thread with ptrace(2), from a seize that leaves it running to a detach.

Nothing here changes the thread, so if the tracer dies at any moment the kernel lets the thread go
on as if nobody had looked.
"""

import errno
import time

from shim import abi
from shim import lightos as os
from shim.errors import ShimError
from shim.host import lightctypes as ctypes
from shim.host import processes
from shim.host.libc import filter_of, ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_WALL = 0x40000000
_AT_ONCE = os.WNOHANG | _WALL
_STOPPED = 0x7F
# Looks before sleeping. With one processor to run on, looking would keep the thread from it.
_SPINS = 400 if len(os.sched_getaffinity(0)) > 1 else 0
_EXECED = "the process started its program without loading a filter"
# A look's own time to end in, and the size of 32768 instructions in a few programs.
_GRACE = 2
_ANSWER_BYTES = 1 << 20
# How long a look waits for another one, which takes microseconds, and how long a start does; how
# often in a row nobody has a thread that we get an EPERM for, until it is we who may not trace it.
_LOOK_SECONDS, START_SECONDS, _FREE = 0.01, 0.2, 10
_STOP_SIGNALS = (19, 20, 21, 22)  # SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU

# struct ptrace_syscall_info (include/uapi/linux/ptrace.h) as 64-bit words: op and arch, ip, sp,
# then at entry nr and args[6], at exit the return value and whether it is an error.
_info_buffer = ctypes.create_string_buffer(88)
_info = memoryview(_info_buffer).cast("B").cast("Q")
_info_address = ctypes.addressof(_info_buffer)

_program_buffer = ctypes.create_string_buffer(abi.BPF_MAXINSNS * 8)
_program = memoryview(_program_buffer)
_program_address = ctypes.addressof(_program_buffer)

# struct user_regs_struct as 64-bit words
_RAX, _ORIG_RAX, _RIP, _CS = 10, 15, 16, 17
_CS_64 = 0x33  # __USER_CS: the call was made in 64-bit mode, and its number means what we think
_WAITS = (
    abi.NR_SEMOP,
    abi.NR_RT_SIGTIMEDWAIT,
    abi.NR_SEMTIMEDOP,
    abi.NR_EPOLL_WAIT,
    abi.NR_EPOLL_PWAIT,
    abi.NR_EPOLL_PWAIT2,
)
_LONG = (1 << 64) - 1


class GoneError(ShimError):
    """The thread ended, or replaced itself by another program, before what was waited for."""


class EndedError(GoneError):
    """The thread ended."""


class StillError(ShimError):
    """The thread did not stop in time: it is frozen, waits for a vfork's child, or is dying."""


class Tracee:
    """One seized thread; ``stops`` counts how often it was stopped."""

    __slots__ = ("entered", "in_32_bits", "pid", "signal", "stops")

    def __init__(self, pid: int, options: int = 0, patience: float = 0) -> None:
        self.pid = pid
        self.stops = 0
        self.entered = self.in_32_bits = False
        seize(pid, abi.PTRACE_O_TRACESYSGOOD | options, patience)
        ptrace(abi.PTRACE_INTERRUPT, pid)
        # Another stop may come first and be the only one: any trap takes the interrupt's with it
        # (kernel/signal.c, ptrace_stop). A signal that it was for is handed on when we resume.
        status = self._wait()
        if status >> 16 == abi.PTRACE_EVENT_EXEC:
            raise GoneError(_EXECED)
        self.signal = resumption(status)[0]

    def next_call(self, numbers: "tuple[int, ...]") -> "tuple[int, int, tuple[int, ...]]":
        """Run on to the thread's next entry of a call in ``numbers``: (arch, nr, args)."""
        while True:
            self._resume_to_call()
            if self.entered:  # the exit of the call seen before: nothing to learn
                self.entered = False
            elif self._info_op() == abi.PTRACE_SYSCALL_INFO_ENTRY:
                self.entered = True
                if _info[3] in numbers:
                    return _info[0] >> 32, _info[3], tuple(_info[4:10])

    def result(self) -> int:
        """Run the entered call to its exit and give its result, errors negative."""
        self._resume_to_call()
        self.entered = False
        if self._info_op() != abi.PTRACE_SYSCALL_INFO_EXIT:
            raise ShimError(f"thread {self.pid} stopped elsewhere than at the exit of its call")
        return _signed(_info[3])

    def to_exec(self, seconds: float) -> bool:
        """Run on, stopped by signals only, to where the thread has executed a program.

        False: it has not within ``seconds``. The thread is left stopped either way. EndedError: it
        has ended; TimeoutError: nor could it be stopped within as many seconds more.
        """
        self.entered = False
        request, until, late = abi.PTRACE_CONT, time.monotonic() + seconds, False
        while True:
            if not late:
                ptrace(request, self.pid, 0, self.signal)
                self.signal = 0
            try:
                status = self._wait(until)
            except TimeoutError:
                if late:
                    raise
                ptrace(abi.PTRACE_INTERRUPT, self.pid)
                late, until = True, time.monotonic() + seconds
                continue
            self.signal, listen = resumption(status)
            if status >> 16 == abi.PTRACE_EVENT_EXEC or late:
                return status >> 16 == abi.PTRACE_EVENT_EXEC
            request = listen or abi.PTRACE_CONT

    def stack_pointer(self) -> int:
        """Return the stack pointer at the present stop."""
        self._info_op()
        return _info[2]

    def again(self, nr: int) -> None:
        """At the exit of call ``nr``: let the thread make the same call once more.

        One PTRACE_SETREGS does it, so a tracer that dies leaves either the finished call or the
        repeated one. The kernel keeps the argument registers across a call; rax and rcx, r11 (which
        ``syscall`` clobbers by definition) are all that differs.
        """
        registers = self._registers()
        registers[_RAX] = nr
        registers[_RIP] -= 2  # back over the two bytes of ``syscall``
        ptrace(abi.PTRACE_SETREGS, self.pid, 0, ctypes.addressof(registers))

    def hide(self, restart_denied: "Callable[[], bool]") -> None:
        """See to it that the program never learns that we stopped it in the middle of a call.

        It is known then whether it was in 32-bit mode (``in_32_bits``).

        A few calls that wait end with EINTR when their thread is stopped (signal(7)); they are made
        again, unless a signal comes. poll, nanosleep, futex and some more are made again as
        restart_syscall, with what is left of their time (kernel: ERESTART_RESTARTBLOCK). Where a
        filter denies that one, and profiles made by watching a program do, the program would see
        its poll fail: then by its own number, which begins its time anew.
        """
        registers = self._registers()
        self.in_32_bits = registers[_CS] != _CS_64
        call, result = _signed(registers[_ORIG_RAX]), _signed(registers[_RAX])
        waited = call in _WAITS and registers[_CS] == _CS_64 and result == -errno.EINTR
        denied = call >= 0 and result == -abi.ERESTART_RESTARTBLOCK and restart_denied()
        if waited or denied:
            registers[_RAX] = -abi.ERESTARTNOHAND & _LONG
            ptrace(abi.PTRACE_SETREGS, self.pid, 0, ctypes.addressof(registers))

    def filters(self) -> list[bytes]:
        """Return the seccomp filters in force, the newest first.

        The kernel counts them from the oldest (get_nth_filter, measured; ptrace(2) has it wrong).
        OSError: EACCES without CAP_SYS_ADMIN or from inside a filter; EINVAL or EIO on a kernel
        without CONFIG_CHECKPOINT_RESTORE.
        """
        found: list[bytes] = []
        while (length := filter_of(self.pid, len(found), _program_address)) >= 0:
            found.append(bytes(_program[: length * 8]))
        return found[::-1]

    def detach(self) -> None:
        """Let the stopped thread go on, untraced."""
        ptrace(abi.PTRACE_DETACH, self.pid, 0, self.signal)

    def _registers(self) -> "ctypes.Array[ctypes.c_ulonglong]":
        """Read struct user_regs_struct (arch/x86/include/asm/user_64.h)."""
        registers = (ctypes.c_ulonglong * 27)()
        ptrace(abi.PTRACE_GETREGS, self.pid, 0, ctypes.addressof(registers))
        return registers

    def _info_op(self) -> int:
        ptrace(abi.PTRACE_GET_SYSCALL_INFO, self.pid, len(_info_buffer), _info_address)
        return _info[0] & 0xFF

    def _resume_to_call(self) -> None:
        signal, self.signal = self.signal, 0
        listen = 0
        while True:
            ptrace(listen or abi.PTRACE_SYSCALL, self.pid, 0, signal)
            status = self._wait()
            if status >> 8 == 5 | 0x80:  # SIGTRAP | PTRACE_O_TRACESYSGOOD's mark
                return
            if status >> 16 == abi.PTRACE_EVENT_EXEC:
                raise GoneError(_EXECED)
            signal, listen = resumption(status)

    def _wait(self, until: float = 0.0) -> int:
        """Wait for the next stop and give its status; ``until`` as of ``wait_for``."""
        return self._stopped(wait_for(self.pid, until)[1])

    def _stopped(self, status: int) -> int:
        if not is_stop(status):
            raise EndedError("the process ended before it loaded a filter")
        self.stops += 1
        return status


def seize(pid: int, options: int, patience: float = 0) -> None:
    """Make thread ``pid`` a tracee of ours and let it run on.

    Who else only looks at a thread, as a scan or a verification does, has let go of it before we
    can ask who that was. One that keeps it is waited for up to ``patience`` seconds.
    PermissionError: another one traces it, or we may not.
    """
    until = time.monotonic() + patience
    free = 0
    while True:
        try:
            ptrace(abi.PTRACE_SEIZE, pid, 0, options)
        except PermissionError:
            if processes.tracer_of(pid):
                if time.monotonic() >= until:
                    raise
                free = 0
                time.sleep(0.0005)
            elif (free := free + 1) == _FREE:
                raise
        else:
            return


def wait_for(pid: int, until: float = 0.0) -> "tuple[int, int]":
    """Wait until tracee ``pid`` (-1: any) has stopped or ended; give which one and its status.

    TimeoutError: not before ``until``, if that is given, on the clock of ``time.monotonic``.
    Looking a few hundred times before sleeping makes a stop about five times cheaper: what
    costs is to wake a processor that went idle (docs/benchmarks.md has the figure).
    """
    wait = os.waitpid
    for _ in range(_SPINS):
        found = wait(pid, _AT_ONCE)
        if found[0]:
            return found
    return _wait_until(pid, until) if until else wait(pid, _WALL)


def _wait_until(pid: int, until: float) -> "tuple[int, int]":
    """Sleep until the kernel tells of a stop by SIGCHLD, which one who ignores it is not sent."""
    import _signal

    ended = (_signal.SIGCHLD,)
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ended)
    handler = _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    try:
        while True:
            found = os.waitpid(pid, _AT_ONCE)
            left = until - time.monotonic()
            if found[0]:
                return found
            if left <= 0:
                raise TimeoutError
            _signal.sigtimedwait(ended, left)
    finally:
        _signal.signal(_signal.SIGCHLD, handler)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


def is_stop(status: int) -> bool:
    """Tell whether a wait status is that of a stop: WIFSTOPPED() of wait.h."""
    return status & 0xFF == _STOPPED


def resumption(status: int) -> "tuple[int, int]":
    """Return the signal to hand on after a stop, and PTRACE_LISTEN if it must last, else 0."""
    signal, event = status >> 8 & 0xFF, status >> 16
    if not event:
        return signal, 0
    # A job-control stop must stay one until its SIGCONT (ptrace(2), PTRACE_LISTEN).
    if event == abi.PTRACE_EVENT_STOP and signal in _STOP_SIGNALS:
        return 0, abi.PTRACE_LISTEN
    return 0, 0


def installed_filters(
    pid: int,
    denies_restart: "Callable[[list[bytes]], bool] | None" = None,
    seconds: float = 10,
    is_meant: "Callable[[], bool]" = lambda: True,
) -> list[bytes]:
    """Read the seccomp filters of live process ``pid``, newest first (root; stops it briefly).

    ``denies_restart`` tells whether the filters deny restart_syscall; without it that is supposed.
    ``is_meant`` is asked while the number cannot become another's: False is an EndedError.
    StillError: it cannot be stopped, and is let go again after ``seconds``. A child of ours looks,
    since nothing but the tracer's own end lets go of a thread that does not stop (ptrace(2)).
    """
    import marshal

    from shim.host.children import answer_of

    def read(writer: int) -> None:
        text = marshal.dumps(_read_stopped(pid, denies_restart, seconds, is_meant))
        while text:
            text = text[os.write(writer, text) :]

    try:
        answer = answer_of(read, seconds + _GRACE, _ANSWER_BYTES)
        kind, found = marshal.loads(answer)  # noqa: S302 - our own child wrote it
    except (TimeoutError, EOFError, ValueError):
        raise StillError(f"process {pid} could not be looked at within {seconds:g} s") from None
    if kind == "filters":
        filters: list[bytes] = found
        return filters
    if kind == "errno":
        raise OSError(found, os.strerror(found))
    raise {"still": StillError, "gone": GoneError, "ended": EndedError}.get(kind, ShimError)(found)


def _read_stopped(
    pid: int,
    denies_restart: "Callable[[list[bytes]], bool] | None",
    seconds: float,
    is_meant: "Callable[[], bool]",
) -> "tuple[str, Any]":
    """Be the child that looks: tell what kind of answer it is, and the answer."""
    import _signal

    # Whatever else may keep us, a second net: the kernel ends us, and that lets go.
    _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGALRM,))
    _signal.alarm(int(seconds) + _GRACE)
    try:
        found, _ = read_stopped(pid, denies_restart, seconds, is_meant)
    except OSError as error:
        return "errno", error.errno
    except StillError as error:
        return "still", str(error)
    except EndedError as error:
        return "ended", str(error)
    except GoneError as error:
        return "gone", str(error)
    except Exception as error:
        return "error", str(error) or repr(error)
    return "filters", found


def read_stopped(
    pid: int,
    denies_restart: "Callable[[list[bytes]], bool] | None",
    seconds: float,
    is_meant: "Callable[[], bool]",
) -> "tuple[list[bytes], bool]":
    """Read the filters of thread ``pid`` by ourselves: where this fails, our end lets go of it.

    As ``installed_filters``, which is for who lives on; and whether its code was of 32 bits.
    """
    tracee = _Looked(pid, seconds)
    found: list[bytes] = []
    try:
        if not is_meant():
            raise EndedError("the process has ended")
        found = tracee.filters()
    finally:
        tracee.hide(lambda: not found or denies_restart is None or denies_restart(found))
        tracee.detach()
    return found, tracee.in_32_bits


class _Looked(Tracee):
    """A thread that is waited for up to a moment: a frozen one, one in vfork does not stop."""

    __slots__ = ("until",)

    def __init__(self, pid: int, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        super().__init__(pid, patience=_LOOK_SECONDS)

    def _wait(self, until: float = 0.0) -> int:
        try:
            return super()._wait(until or self.until)
        except TimeoutError:
            why = f"process {self.pid} does not stop (paused, in vfork, or dying)"
            raise StillError(why) from None


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
