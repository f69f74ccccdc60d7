"""The OCI prestart or createRuntime hook: decide, start the tracer, return.

Called by the runtime with the container's state (JSON) on standard input, in the runtime's own
namespaces, after the container's init exists and before it loads its filter.
"""

import gc
import os
import sys

from shim import abi, config
from shim import log as journal
from shim.errors import LeftAlone, ShimError
from shim.host import processes
from shim.start.needed import needed_calls
from shim.startjson import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from shim.host.ptrace import Tracee

USAGE = "usage: seccomp-shim-hook [--config FILE] [--canary NR] < state.json"
# What the front says besides: limits that it could not raise; where it has looked for a tracer.
_OPTIONS = ("--config", "--canary", "--limits", "--rendezvous")
_SEIZE_SECONDS = 10
_FOLLOW_SECONDS = 120
_STATE_BYTES = 1 << 20
_STATE_SECONDS = 10


def main(argv: "list[str]", runtime: int = 0) -> int:
    """Run the hook and give its exit code: 0, or 1 where the start is refused.

    ``runtime`` is the process that called the hook, by default our parent.
    """
    gc.disable()  # a few milliseconds of life leave nothing worth collecting
    try:
        options = parse(argv, _OPTIONS, USAGE)
    except ShimError as error:
        return _complain(str(error), 2)
    settings, doubt = config.load(options.get("--config", config.PATH))
    canary = int(options.get("--canary", "0")) or settings["canary"]
    start = Start(settings)
    try:
        if limits := options.get("--limits"):
            start.facts["limits"] = f"cannot be raised: {limits}"
        if doubt:
            start.log("config", level="error", reason=doubt)
        start.read_state()
        return start.decide(canary, runtime or os.getppid())
    except Exception as error:  # a fault of ours must not be what stops a container
        return start.fail(error)


class Start:
    """One container start: its settings and what is known of it, for the log.

    ``pinned`` stands for the process ``pid`` (``shim.host.processes``).
    """

    __slots__ = ("deny", "facts", "path", "pid", "pinned")

    def __init__(self, settings: "dict[str, Any]") -> None:
        self.deny = settings["on_error"] == "deny"
        self.path = settings["log"]
        self.facts: dict[str, object] = {"mechanism": "filter-injection"}
        self.pid = 0
        self.pinned = -1

    def log(self, event: str, *, level: str = "info", **fields: object) -> None:
        """Write one audit line; OSError if it cannot be written."""
        journal.append(journal.render(level, event, {**self.facts, **fields}), self.path)

    def fail(self, error: Exception) -> int:
        """Say that nothing could be done and why; then allow or refuse as the admin chose."""
        reason = self.log_failure(error)
        if not self.deny:
            return _complain(f"container left as it was: {reason}", 0)
        message = f"start refused (on_error: deny): {reason}"
        processes.tell(self.pinned, message)  # crun shows nobody what a failing hook says
        return _complain(message, 1)

    def log_failure(self, error: Exception) -> str:
        """Log that nothing could be done, if that can be done; give the reason."""
        reason = str(error) if isinstance(error, ShimError | OSError) else repr(error)
        try:
            self.log("refused" if self.deny else "failed", level="error", reason=reason)
        except OSError as unlogged:
            reason = f"{reason}; and the log cannot be written: {unlogged}"
        return reason

    def read_state(self) -> None:
        """Read the state that the runtime gives; ShimError if it is none, or does not come."""
        text = _given()
        try:
            state = loads(text)
            pid, bundle, name = state["pid"], state["bundle"], state["id"]
        except (ValueError, KeyError, TypeError) as error:
            raise ShimError(f"no container state on standard input: {error!r}") from None
        if type(pid) is not int or pid < 2 or not isinstance(bundle, str):
            raise ShimError(f"container state with pid {pid!r} and bundle {bundle!r}")
        self.pid = pid
        self.pinned = processes.pin(pid)  # its runtime waits for us: nobody else has the number yet
        self.facts |= {"container": str(name), "bundle": bundle, "pid": pid}
        self.facts["kernel"] = os.uname().release

    def decide(self, canary: int, runtime: int) -> int:
        """Find out whether this container needs an adjustment and, if so, have it made."""
        needed, self.facts["state"], reason = needed_calls(canary)
        if not needed:
            return self._leave(reason)
        # Its imports are half of what an injection adds: it begins with them while we decide.
        tracer = Tracer(self)
        from shim.start.spec import read

        spec = read(os.path.join(str(self.facts["bundle"]), "config.json"))
        self.facts["runtime"] = caller = _runtime(runtime)
        denied, reason = spec.needing(needed, caller)
        if not denied:
            return self._leave(reason)
        raw_bpf = spec.takes_program(caller)
        tracer.seize({"calls": denied, "runtime": caller, "raw_bpf": raw_bpf})
        return 0

    def _leave(self, reason: str) -> int:
        self.log("left-alone", reason=reason)
        return 0


def _given() -> bytes:
    """Read standard input to its end, which a caller that keeps it open may never make."""
    import _signal

    def too_late(_number: int, _frame: object) -> None:
        raise ShimError(f"no container state on standard input within {_STATE_SECONDS} seconds")

    before = _signal.signal(_signal.SIGALRM, too_late)
    left = _signal.alarm(_STATE_SECONDS)
    text = b""
    try:
        while len(text) <= _STATE_BYTES and (part := os.read(0, 65536)):
            text += part
    finally:
        _signal.alarm(left)
        _signal.signal(_signal.SIGALRM, before)
    return text


class Tracer:
    """The process that will follow the init; without an order it ends when we do."""

    __slots__ = ("answer", "order")

    def __init__(self, start: Start) -> None:
        self.answer, writer = os.pipe()
        reader, self.order = os.pipe()
        if os.fork() == 0:
            _become_tracer(start, reader, writer)
        os.close(reader)
        os.close(writer)

    def seize(self, order: "dict[str, object]") -> None:
        """Hand the order over and return once the init is held; ShimError if it is not."""
        import select

        os.write(self.order, dumps(order).encode())
        os.close(self.order)
        ready, _, _ = select.select([self.answer], [], [], _SEIZE_SECONDS)
        answer = os.read(self.answer, 4096) if ready else b""
        # A tracer that wants to answer later finds nobody, and ends.
        os.close(self.answer)
        if answer not in (b"seized", b"held"):
            raise ShimError(answer.decode() or "the tracer did not answer")


def _become_tracer(start: Start, order: int, answer: int) -> "NoReturn":
    """Be the tracer until the filter is loaded, then end this process."""
    from shim.start.inject.background import leave

    code = 1
    try:
        leave(order, answer, start.pinned)
        code = _trace(start, order, answer)
    finally:
        os._exit(code)


def _trace(start: Start, order: int, answer: int) -> int:
    text = os.read(order, 65536)
    if not text:
        return 0  # nothing is to be done, or the hook has failed
    document = loads(text)
    start.facts["runtime"] = document["runtime"]

    def tell_hook(message: str) -> None:
        os.write(answer, message.encode())
        os.close(answer)

    return trace(start, document["calls"], tell_hook, raw_bpf=document["raw_bpf"])


def trace(
    start: Start,
    calls: "dict[str, int]",
    answer: "Callable[[str], None]",
    *,
    raw_bpf: bool = False,
) -> int:
    """Follow the init until its filter is loaded and ``calls`` are let through; give an exit code.

    With ``raw_bpf`` that may be a program of the annotation, with our allow in front.
    ``answer`` is called once: with ``seized`` as soon as the init is held, with ``held`` where
    another tracer of ours holds it, as at the second of two stages, or with why it is not held.
    """
    import _signal

    from shim.host.ptrace import EndedError, Tracee

    def unstoppable(_number: int, _frame: object) -> None:
        raise ShimError(f"it does not stop within {_SEIZE_SECONDS} seconds")

    _signal.signal(_signal.SIGALRM, unstoppable)
    _signal.alarm(_SEIZE_SECONDS)  # a frozen one, one in vfork(): the runtime waits for our answer
    try:
        fate = abi.PTRACE_O_EXITKILL if start.deny else 0
        tracee = Tracee(start.pid, abi.PTRACE_O_TRACEEXEC | fate)
        if not processes.is_there(start.pinned):
            tracee.detach()  # it has ended in between, and its number is another's
            raise ShimError("it has ended")
    except (OSError, ShimError) as error:
        _signal.alarm(0)
        held = processes.held_by_us(start.pinned)
        answer("held" if held else f"cannot trace the container's init: {error}")
        return 1 - held

    def too_late(_number: int, _frame: object) -> None:
        end = "and is killed" if start.deny else "and is let go as it is"
        raise ShimError(
            f"the container's init loaded no filter within {_FOLLOW_SECONDS} seconds, {end}"
        )

    _signal.signal(_signal.SIGALRM, too_late)
    _signal.alarm(_FOLLOW_SECONDS)
    try:
        answer("seized")
    except OSError:
        return 1  # nobody waits any more; the init goes on as we end, or ends with us (deny)
    # From here on the runtime goes on beside us: what is imported now costs the container nothing.
    from shim.start.inject.follow import follow

    try:
        follow(tracee, calls, start.log, raw_bpf=raw_bpf)
    except (EndedError, ProcessLookupError):
        # A start that fails by itself (no such program, another hook) is no error of ours. ESRCH is
        # what a request gets whose stopped thread was killed (ptrace(2)).
        start.log("left-alone", reason="the process ended before it loaded a filter")
        return 0
    except LeftAlone as reason:
        start.log("left-alone", reason=str(reason))
    except BaseException as error:
        if not start.deny:
            _let_go(tracee)  # before anything else: the container waits
        # Where the start is refused the init ends with this process (PTRACE_O_EXITKILL).
        return start.fail(error if isinstance(error, Exception) else ShimError(repr(error)))
    _let_go(tracee)
    return 0


def _let_go(tracee: "Tracee") -> None:
    try:  # noqa: SIM105 - contextlib is an import that every container would pay for
        tracee.detach()
    except OSError:
        pass  # running, or gone: nothing holds it


def _runtime(parent: int) -> str:
    """Give the path of the runtime that called us, or the name it goes by where it has no path."""
    try:
        path = processes.link(parent, "exe")
        if os.path.isfile(path):
            return path
    except OSError:
        pass  # without CAP_SYS_PTRACE this is as closed to us as the init itself
    # crun runs from a sealed copy of itself that no path leads to (CVE-2019-5736).
    return processes.name(parent)


def parse(argv: "list[str]", known: "tuple[str, ...]", usage: str) -> "dict[str, str]":
    """Parse the admin's arguments by hand: argparse costs more than all else here together.

    ShimError: one that is not among ``known``, or a value that cannot be meant.
    """
    given = {}
    rest = list(argv[1:])
    while rest:
        option = rest.pop(0)
        value = rest.pop(0) if rest else ""
        if option not in known or not _fits(option, value):
            raise ShimError(f"cannot use {option} {value}".rstrip(), hint=usage)
        given[option] = value
    return given


def _fits(option: str, value: str) -> bool:
    if option == "--canary":
        return value.isdigit() and int(value) in abi.CANARIES
    return value.startswith("/") if option in ("--config", "--rendezvous") else value != ""


def _complain(message: str, code: int) -> int:
    """Say ``message`` on standard error; runtimes show it when the code is not 0."""
    try:
        sys.stderr.write(f"seccomp-shim-hook: {message}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    return code
