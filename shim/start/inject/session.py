"""One start: what is known of it for the log, the state that its runtime gives, and what it needs.

Of all that starts through us, by a hook or by the wrapper; nothing here costs one that needs
nothing more than it must.
"""

import sys

from shim import lightos as os
from shim import log as journal
from shim.errors import ShimError
from shim.startjson import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STATE_BYTES = 1 << 20
_STATE_SECONDS = 10
_NOT_ASKED = -2


class Start:
    """One container start: its settings and what is known of it, for the log.

    ``pinned`` stands for the process ``pid`` (``shim.host.processes``), once it is asked for.
    """

    __slots__ = ("deny", "facts", "path", "pid", "pinned")

    def __init__(self, settings: "dict[str, Any]") -> None:
        self.deny = settings["on_error"] == "deny"
        self.path = settings["log"]
        self.facts: dict[str, object] = {"mechanism": "filter-injection"}
        self.pid = 0
        self.pinned = _NOT_ASKED

    def log(self, event: str, *, level: str = "info", **fields: object) -> None:
        """Write one audit line; OSError if it cannot be written."""
        journal.append(journal.render(level, event, {**self.facts, **fields}), self.path)

    def fail(self, error: Exception) -> int:
        """Say that nothing could be done and why; then allow or refuse as the admin chose."""
        reason = self.log_failure(error)
        if not self.deny:
            return complain(f"container left as it was: {reason}", 0)
        from shim.host import processes

        message = f"start refused (on_error: deny): {reason}"
        processes.tell(self.pin(), message)  # crun shows nobody what a failing hook says
        return complain(message, 1)

    def log_failure(self, error: Exception) -> str:
        """Log that nothing could be done, if that can be done; return the reason."""
        reason = str(error) if isinstance(error, ShimError | OSError) else repr(error)
        try:
            self.log("refused" if self.deny else "failed", level="error", reason=reason)
        except OSError as unlogged:
            told = f"the log {self.path} cannot be written: {unlogged.strerror or unlogged}"
            same = isinstance(error, OSError) and error.filename == self.path
            reason = told if same else f"{reason}; and {told}"
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
        self.facts |= {"container": str(name), "bundle": bundle, "pid": pid}
        self.facts["kernel"] = os.uname().release

    def pin(self) -> int:
        """Return what stands for the process of the state; -1 if none is known, or it is gone.

        To be called while its runtime waits for us: nobody else has the number yet.
        """
        if self.pid and self.pinned == _NOT_ASKED:
            from shim.host import processes

            self.pinned = processes.pin(self.pid)
        return self.pinned


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


def needed_calls(test_syscall: int) -> "tuple[dict[str, int], dict[str, str], str]":
    """Return the calls to let through by name, the kernel's state, and why there are none.

    A ``test_syscall`` other than 0 is one more, whatever the kernel does: the state says so, and
    with it each line of the log. ShimError: the state cannot be told.
    """
    from shim.host.cache import facts

    host = facts()
    states = {name: call["state"] for name, call in host["syscalls"].items()}
    if unknown := [name for name, state in states.items() if state == "unknown"]:
        why = "; ".join(f"{n}: {host['syscalls'][n].get('reason', '')}" for n in unknown)
        raise ShimError(f"the kernel's state is unknown: {why}")
    needed = {n: c["nr"] for n, c in host["syscalls"].items() if c["state"] == "filtered"}
    if test_syscall:
        needed[f"test-syscall-{test_syscall}"] = test_syscall
        states[f"test-syscall-{test_syscall}"] = "on, for a test"
    return needed, states, "this kernel does not let a filter deny any of these calls"


def complain(message: str, code: int) -> int:
    """Say ``message`` on standard error; runtimes show it when the code is not 0."""
    try:
        sys.stderr.write(f"seccomp-shim-hook: {message}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    return code
