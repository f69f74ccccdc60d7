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
# The proof of a program for crun, and what follows where it was kept from an earlier start.
COMPARED = "compiled with and without them and compared for every call"
WHEN_MADE = ", when it was made"


class Start:
    """One container start: its settings and what is known of it, for the log.

    ``pinned`` stands for the process ``pid`` (``shim.host.processes``), once it is asked for.
    ``unknown`` tells whether calls that no rule names get ENOSYS; ``refused`` are those that do.
    """

    __slots__ = (
        "announced", "deny", "facts", "path", "pid", "pinned", "refused", "settings", "unknown",
    )  # fmt: skip

    def __init__(self, settings: "dict[str, Any]") -> None:
        self.deny = settings["on_error"] == "deny"
        self.path = settings["log"]
        self.settings = settings
        # What is about to be done, until the one line of what was done is written (log.announce).
        self.announced: tuple[bytes, tuple[int, str]] | None = None
        self.unknown = settings.get("unknown_calls") == "enosys"
        self.refused: dict[str, int] = {}
        self.facts: dict[str, object] = {"mechanism": "filter-injection"}
        self.pid = 0
        self.pinned = _NOT_ASKED

    def log(self, event: str, *, level: str = "info", **fields: object) -> None:
        """Write one audit line; OSError if it cannot be written.

        Where a start goes well its one line is the last: what is written before a change waits
        beside the log for that, and goes into it where anything else comes.
        """
        facts = {**self.facts, **fields}
        brief = self.settings["log_detail"] == "brief"
        well = event == "adjusted" and facts.get("verified") is not False
        if not well:
            self._write_announced()
        # Under a limit of the container's the log may take no line while another file does.
        if event == "adjusting" and brief and "limits" not in facts:
            self._announce(journal.render(level, event, facts))
            return
        if well and brief:
            facts = _needed(facts)
        try:
            if not (well and self._is_counted(facts)):
                line = journal.render(level, event, facts)
                journal.append(line, self.path, self.settings["log_max"])
        except OSError:
            if not self.announced:
                raise
            # It is on the disk, and comes into the log as soon as that takes it.
            os.close(self.announced[1][0])
        else:
            if self.announced:
                journal.forget(self.announced[1])
        self.announced = None

    def _announce(self, line: bytes) -> None:
        try:
            self.announced = line, journal.announce(line, self.path)
        except OSError as error:
            if error.filename == self.path:
                raise  # it is the log itself, or its disk
            journal.append(line, self.path)  # no file can be made beside it

    def _write_announced(self) -> None:
        if self.announced:
            line, pending = self.announced
            journal.append(line, self.path, self.settings["log_max"])
            self.announced = None
            journal.forget(pending)

    def _is_counted(self, facts: "dict[str, object]") -> bool:
        """Tell whether this is one more of what was written already, and only to be counted."""
        if self.settings["log_repeats"] != "count" or facts.get("process") != "exec":
            return False
        if facts.get("verified") is not True:
            return False
        from shim.start import repeats

        return repeats.counted(facts, self.path, self.settings["log_max"])

    def settle(self) -> None:
        """Put into the log what was announced by others that were killed; nobody waits for it."""
        try:  # noqa: SIM105 - contextlib is an import that every container would pay for
            journal.settle(self.path)
        except OSError:
            pass  # the next one tries again

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


def _needed(facts: "dict[str, object]") -> "dict[str, object]":
    """Return what a line must say of a start that went well, and no more.

    The state of the calls is that of those that were adjusted. The directory of a bundle that is
    named by its container is the engine's for all of them: the engine's name tells it. A program
    for crun is handed over with one proof or not at all; what differs is when it was made.
    """
    left = {"state"} if facts.get("syscall") else set()
    bundle = str(facts.get("bundle", ""))
    if not facts.get("reason"):
        left.add("reason")
    if (proof := facts.get("proof")) == COMPARED:
        left.add("proof")
    elif proof == COMPARED + WHEN_MADE:
        facts = {**facts, "proof": "kept"}
    if os.path.basename(bundle) == facts.get("container"):
        left.add("bundle")
        if "/io.containerd.runtime." in bundle:
            facts = {**facts, "engine": "docker" if "/moby/" in bundle else "containerd"}
    return {key: value for key, value in facts.items() if key not in left}


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
        from shim import abi

        name = f"{abi.TEST_SYSCALL}{test_syscall}"
        needed[name] = test_syscall
        states[name] = "on, for a test"
    return needed, states, "this kernel does not let a filter deny any of these calls"


def complain(message: str, code: int) -> int:
    """Say ``message`` on standard error; runtimes show it when the code is not 0."""
    try:
        sys.stderr.write(f"seccomp-shim-hook: {message}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    return code
