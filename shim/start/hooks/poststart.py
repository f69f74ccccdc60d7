"""The OCI poststart hook: look whether the container has the filter that it should have.

It runs in the background (hooks/seccomp-shim-verify is a shell's ``&``), changes nothing, and
writes one line where not all is as it should be: ``verified`` is false (level error), or null where
it cannot be told. With ``log_detail: full`` it says true as well. What it must find its arguments
say: the container's id may have been another's before, in the log too.
"""

import time

from shim import abi
from shim import lightos as os
from shim.bpf import program as bpf
from shim.bpf.outcomes import LETTING, names, outcomes, surely_lets_through, together
from shim.errors import ShimError
from shim.host import processes
from shim.start.digest import sha256
from shim.start.hooks import parse
from shim.start.inject.augment import verdict_before
from shim.start.session import Start, needed_calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = (
    "usage: seccomp-shim-verify [--config FILE] [--test-syscall NR] [--mechanism NAME] "
    "[--sha256 HEX]"
    " [--seconds N] < state.json"
)
_OPTIONS = ("--config", "--test-syscall", "--mechanism", "--sha256", "--seconds")
_SECONDS = 30
_GRACE = 10
_ENDED = ("Z", "X")
# Processor time for an opinion: a filter takes some milliseconds, with unknown_calls 350 times.
_OPINION_SECONDS = 3
_HAS_ENDED = "the container's process has ended"
_INTRICATE = "its filters are too intricate to be judged"
_EPERM = frozenset((abi.SECCOMP_RET_ERRNO | 1,))
_ENOSYS = frozenset((abi.SECCOMP_RET_ENOSYS,))


class CannotTell(Exception):  # noqa: N818 - a result, not an error
    """The filter could not be looked at, or is none of our doing; the message says why."""


def main(argv: "list[str]") -> int:
    """Look at one container and log what was found; nobody is left to take an exit status."""
    from shim import config

    try:
        options, wrong = parse(argv, _OPTIONS, USAGE), None
    except ShimError as error:
        options, wrong = {}, error
    settings, _ = config.load(options.get("--config", config.PATH))
    check = Verification(settings, options)
    _end_at_last(check.seconds + _GRACE)
    try:
        check.read_state()  # before all else: crun has to get it written (hooks/guard)
        check.pin()
        if wrong:
            raise wrong
        test_syscall = int(options.get("--test-syscall", "0")) or settings["test_syscall"]
        calls, check.facts["state"], _ = needed_calls(test_syscall)
        if calls or check.unknown:
            check.compare(calls)
    except CannotTell as reason:
        # A tracer has looked at the very filter as the program began: that it has ended is no news.
        if str(reason) != _HAS_ENDED or not check.is_seen():
            check.log("verified", verified=None, reason=str(reason))
    except (OSError, ShimError) as error:
        check.log("verified", level="warning", verified=None, reason=str(error))
    return 0


def _end_at_last(seconds: int) -> None:
    """Have the kernel end this process after ``seconds``, whatever may keep it."""
    import _signal

    _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGALRM,))
    _signal.alarm(seconds)


class _Limit:
    """Limits what it takes to judge filters, of which the container's program may load any.

    CannotTell in the block: its processor time is over, or all of ours, by which the kernel would
    end us without a word.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        import _signal

        def over(_number: int, _frame: object) -> None:
            raise CannotTell(_INTRICATE)

        _signal.signal(_signal.SIGVTALRM, over)
        _signal.signal(_signal.SIGALRM, over)
        _signal.setitimer(_signal.ITIMER_VIRTUAL, _OPINION_SECONDS)

    def __exit__(self, *_: object) -> None:
        import _signal

        _signal.signal(_signal.SIGVTALRM, _signal.SIG_IGN)
        _end_at_last(_GRACE)


class Verification(Start):
    """One running container to be looked at."""

    __slots__ = ("expected", "seconds")

    def __init__(self, settings: "dict[str, Any]", options: "dict[str, str]") -> None:
        super().__init__(settings)
        self.facts["mechanism"] = options.get("--mechanism", "")
        self.expected = options.get("--sha256")
        seconds = options.get("--seconds", "")
        self.seconds = min(int(seconds), _SECONDS) if seconds.isdigit() else _SECONDS

    def compare(self, calls: "dict[str, int]") -> None:
        """Read the filters in force and log whether they let ``calls`` through."""
        from shim.start.spec import RAW_BPF, read

        bundle = str(self.facts["bundle"])
        try:
            spec = read(os.path.join(bundle, "config.json"))
        except ShimError:
            if os.path.exists(bundle):
                raise
            # Engines remove the bundle with the container: on a busy host before we come to it.
            raise CannotTell(_HAS_ENDED) from None
        denied, named, _ = spec.denied_by_default(calls, raw_bpf=True)
        # Of a program in the profile's place nothing is known, unless it is the one that we made.
        if self.unknown and (
            self.expected or RAW_BPF not in (spec.config.get("annotations") or {})
        ):
            from shim.profile.unlisted_calls import unnamed
            from shim.start.enosys_calls import seccomp

            self.refused, _ = unnamed(seccomp(spec))
        if not denied and not named and not self.refused:
            return  # the profile's author wants it so, or there is none
        self._is_container(spec.config)
        filters = self._settled()
        inherited, wanted = _own_filters(), denied | named
        with _Limit():
            verified, facts = opinion(filters, inherited, wanted, self.expected, self.refused)
        if verified is True and self.settings["log_detail"] == "brief":
            return
        self.log(
            "verified", level="error" if verified is False else "info", verified=verified, **facts
        )

    def is_seen(self) -> bool:
        """Tell whether the line of the adjustment says what was seen, and that is enough."""
        brief = self.settings["log_detail"] == "brief"
        return brief and self.facts["mechanism"] == "filter-injection"

    def _is_container(self, config: "dict[str, Any]") -> None:
        """See that it is the container's process that is held, which may have ended before."""
        root = os.path.join(str(self.facts["bundle"]), config.get("root", {}).get("path", ""))
        try:
            own = os.stat("root/.", dir_fd=self.pinned)
            older = _started(self.pinned) <= _started(processes.pin(os.getpid()))
        except OSError:
            raise CannotTell(_HAS_ENDED) from None
        try:
            same = os.path.samestat(own, os.stat(root))
        except OSError as error:
            raise CannotTell(f"the container's root cannot be seen: {error}") from None
        if not same or not older:
            raise CannotTell("the container's process has ended, its pid is another's")

    def _settled(self) -> "list[bytes]":
        """Wait until the filter is loaded: runc does that last of all with no_new_privileges.

        A thread that does not stop, since its container is paused or since it waits for the child
        of a vfork, may do so a moment later: it is held for a second at most, then let go and tried
        again.
        """
        from shim.host.ptrace import StillError

        deadline = time.monotonic() + self.seconds
        pause = 0.001
        reason = "no filter was loaded"
        while (left := deadline - time.monotonic()) > 0:
            try:
                found = self._filters(min(left, 1))
            except StillError as still:
                reason = str(still)
                continue
            except (FileNotFoundError, ProcessLookupError, ShimError):
                break
            if self._has_ended():
                break
            if found is not None:
                return found
            time.sleep(pause)
            pause = min(2 * pause, 0.5)
        else:
            traced = _number(self.pinned, "TracerPid")
            raise CannotTell(f"traced by process {traced}" if traced else reason)
        raise CannotTell(_HAS_ENDED)

    def _filters(self, seconds: float) -> "list[bytes] | None":
        """Read the filters of a process that has loaded one and that nobody traces, else None."""
        from shim.host.ptrace import installed_filters

        mode = _number(self.pinned, "Seccomp")
        if mode != abi.SECCOMP_MODE_FILTER or _number(self.pinned, "TracerPid"):
            return None
        _hurry(True)  # it must not stand still for as long as a busy host keeps us waiting
        try:
            return installed_filters(
                self.pid, _denies_restart, seconds, lambda: processes.is_there(self.pinned)
            )
        except PermissionError as error:
            if _number(self.pinned, "TracerPid") or self._has_ended():
                return None
            raise CannotTell(f"the installed filter cannot be read: {error.strerror}") from None
        finally:
            _hurry(False)

    def _has_ended(self) -> bool:
        state = processes.status(self.pinned, ("State",)).get("State")
        return not state or state[0] in _ENDED


def opinion(
    filters: "list[bytes]",
    inherited: int,
    calls: "dict[str, int]",
    expected: "object" = None,
    refused: "dict[str, int] | None" = None,
) -> "tuple[bool | None, dict[str, object]]":
    """Tell whether all of a container's ``filters``, the newest first, let ``calls`` through. Pure.

    The oldest ``inherited`` come from whoever started the runtime, the next one from the runtime;
    of what is newer nobody can say whether the container's own program loaded it or the runtime a
    second one. ``expected`` is the SHA-256 of the runtime's program where it is known; ``refused``
    are not to get EPERM of it. Returns what
    the log says and the verdict: None where a call is denied, but not by a default of the
    runtime's. CannotTell: there is no filter of the runtime's.
    """
    if len(filters) <= inherited:
        raise CannotTell("the runtime has loaded no filter")
    at = len(filters) - 1 - inherited
    installed = filters[at]
    programs = [bpf.decode(program) for program in filters]
    facts: dict[str, object] = {
        "syscall": ",".join(calls),
        "after": ",".join(names(together(programs, nr)) for nr in calls.values()),
        "length_after": len(installed) // 8,
        "sha256_after": sha256(installed),
    }
    wrong, reasons = False, []
    for name, nr in calls.items():
        reason, ours = _objection(programs, at, nr)
        wrong = wrong or ours
        if reason:
            reasons.append(f"{name}: {reason}")
    if refused:
        answers = {name: together(programs, nr) for name, nr in refused.items()}
        facts["enosys"] = ",".join(name for name, each in answers.items() if each == _ENOSYS)
        kept = [name for name, nr in refused.items() if outcomes(programs[at], nr) == _EPERM]
        if kept:
            wrong = True
            reasons.append(f"{','.join(kept)}: no rule names it, and it gets EPERM")
    if expected and expected != facts["sha256_after"]:
        reasons.append("the installed filter is not the one that was handed over")
        wrong = True
    elif expected:
        facts["proof"] = "the installed filter is the one that was handed over"
    facts["reason"] = "; ".join(reasons)
    return False if wrong else None if reasons else True, facts


def _objection(programs: "list[bpf.Insns]", at: int, nr: int) -> "tuple[str, bool]":
    """Say which filter denies a call, the runtime's being number ``at``, and whether it should not.

    What the runtime's filter denies by name is meant so, and what came later is not ours to judge.
    """
    if not _lets([programs[at]], nr):
        reason = verdict_before(programs[at], nr)[1]
        return reason or "the runtime's filter denies it", not reason
    if not _lets(programs[at:], nr):
        return "an older filter denies it", True
    if not _lets(programs[:at], nr):
        return (
            "a filter denies it that the program loaded itself, or the runtime as one more",
            False,
        )
    return "", False


def _lets(programs: "list[bpf.Insns]", nr: int) -> bool:
    """Tell whether the call is let through whatever its arguments are."""
    verdicts = together(programs, nr)
    return bool(verdicts) and {v & abi.SECCOMP_RET_ACTION_FULL for v in verdicts} <= LETTING


def _denies_restart(filters: "list[bytes]") -> bool:
    return not surely_lets_through(filters, abi.NR_RESTART_SYSCALL)


def _hurry(yes: bool) -> None:
    try:  # noqa: SIM105 - contextlib is an import too many for something so small
        os.setpriority(os.PRIO_PROCESS, 0, 0 if yes else 19)
    except OSError:
        pass  # who is not root cannot undo what it gave


def _own_filters() -> int:
    """Return how many filters we run under ourselves; the runtime that called us has the same."""
    return _number(processes.pin(os.getpid()), "Seccomp_filters")


def _number(pinned: int, key: str) -> int:
    """Return a number of the process's status, 0 where the kernel tells none."""
    return int(processes.status(pinned, (key,)).get(key, ["0"])[0])


def _started(pinned: int) -> int:
    """Return when the process started, in clock ticks since boot (proc(5)); OSError: it is gone."""
    fd = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=pinned)
    with open(fd, "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])
