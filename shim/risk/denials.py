"""Which calls the filters of running processes refuse, as it happens.

The kernel tells which calls end with an errno that filters give, and which filters their callers
have (``shim.host.tracing.refusals``); these are asked about just this call. Only what they answer
by that errno is a refusal, the rest is the kernel's own.
"""

import errno
import select
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from shim import abi
from shim.host.tracing.refusals import Ended, Watch
from shim.risk.verdict import OutOfTimeError, errnos, verdict_on, verdicts, within

# What filters answer with, mostly (systemd's RestrictAddressFamilies= EAFNOSUPPORT). Others are
# looked for as soon as a filter is seen that gives them.
USUAL = (errno.EPERM, errno.ENOSYS, errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
_KINDS = 5_000
_EXAMPLES = 4
_AT_ONCE = 1.0  # seconds for what has come, before somebody is told again
_SECONDS = 0.2  # of processor time, to judge a call whatever its arguments are
_KILLING = (
    abi.SECCOMP_RET_KILL_PROCESS,
    abi.SECCOMP_RET_KILL_THREAD,
    abi.SECCOMP_RET_TRAP,
)

# Tells which group, as a container, a call is counted in; None: it is not watched.
Placed = Callable[[Ended], str | None]


@dataclass
class Denial:
    """Calls that were refused alike: ``answer`` is the filter's verdict.

    None: the filters are not known, and the call may have failed by itself. ``errno`` is what it
    ended with, None if by SIGSYS. ``arguments`` are those of a few calls, where a filter looks at
    them. ``pid`` is of the first one; ``first`` and ``last`` are nanoseconds on the monotonic
    clock.
    """

    group: str
    program: str
    arch: int
    nr: int
    answer: int | None
    errno: int | None
    pid: int
    first: int
    last: int = 0
    count: int = 0
    arguments: list[tuple[int, ...]] = field(default_factory=list)


class Denials:
    """A watch over the calls that ``placed`` names a group for; a context manager."""

    def __init__(
        self,
        placed: Placed,
        *,
        places: Collection[int] = (),
        pid: int = 0,
    ) -> None:
        """Begin. ShimError: we may not.

        ``places`` and ``pid`` are those of ``shim.host.tracing.refusals.Watch``: where they are
        given, nobody else's calls take room from those that count.
        """
        self._placed = placed
        self._kinds: dict[tuple[object, ...], Denial] = {}
        self._watch = Watch(USUAL, places=places, pid=pid)
        self.unnoted = 0  # calls of further kinds, when there were too many
        self.behind = False  # whether the last look ended before all of it was judged

    def poll(self, seconds: float) -> list[Denial]:
        """Wait up to ``seconds`` for refusals; return those of a kind that is new."""
        select.select([self._watch], (), (), seconds)
        before = len(self._kinds)
        until = time.monotonic() + _AT_ONCE
        self.behind = False
        for event in self._watch.events():
            self._count(event)
            if time.monotonic() > until:  # intricate filters; what finds no room is told as lost
                self.behind = True
                break
        return list(self._kinds.values())[before:]

    def found(self) -> list[Denial]:
        """Return what was refused, the most frequent first; behind it what is not certain."""
        return sorted(self._kinds.values(), key=lambda each: (each.answer is None, -each.count))

    def finish(self, seconds: float) -> None:
        """Judge what has come until now, for that long at most; the rest counts as not noted."""
        until = time.monotonic() + seconds
        self.poll(0)
        while self.behind and time.monotonic() < until:
            self.poll(0)
        if self.behind:
            self.unnoted += sum(1 for _ in self._watch.events())

    def lost(self) -> int:
        """Return how many calls the kernel had no room to tell of."""
        return self._watch.lost()

    def _count(self, event: Ended) -> None:
        programs = event.filters
        if programs is not None:
            self._watch.look_for(errnos(programs) - {0})
        answer = None if programs is None else answered(event, programs)
        if event.errno == 0:  # nothing else ends a thread so
            answer = abi.SECCOMP_RET_KILL_THREAD
        if answer is None and programs is not None:
            return
        group = self._placed(event)
        if group is None:
            return
        key = (group, event.name, event.arch, event.nr, answer, event.errno)
        denial = self._kinds.get(key)
        if denial is None:
            if len(self._kinds) >= _KINDS:
                self.unnoted += 1
                return
            denial = self._kinds[key] = Denial(
                *(group, event.name, event.arch, event.nr, answer, event.errno, event.pid),
                event.time,
            )
        denial.count += 1
        denial.last = event.time
        if (
            programs is not None
            and len(denial.arguments) < _EXAMPLES
            and event.args not in denial.arguments
            and len(_possible(programs, event)) != 1
        ):
            denial.arguments.append(event.args)

    def close(self) -> None:
        """End the watch; what it found stays."""
        self._watch.close()

    def __enter__(self) -> "Denials":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _possible(programs: tuple[bytes, ...], event: Ended) -> frozenset[int]:
    """Return what the filters can answer this call, whatever its arguments; none: undecided."""
    try:
        with within(_SECONDS):
            return verdicts(programs, event.nr, event.arch)
    except OutOfTimeError:
        return frozenset()


def answered(event: Ended, programs: tuple[bytes, ...]) -> int | None:
    """Return the verdict of ``programs`` on a call, if that is how it ended.

    None: the kernel's own code ended it, after the filters had let it through.
    """
    answer: int | None
    if len(possible := _possible(programs, event)) == 1:
        (answer,) = possible
    else:
        answer = verdict_on(programs, event.nr, event.arch, event.args, event.ip)
    if answer is None:
        return None
    action = answer & abi.SECCOMP_RET_ACTION_FULL
    if event.errno is None:
        explained = action in _KILLING
    elif action == abi.SECCOMP_RET_TRACE:
        explained = event.errno == errno.ENOSYS  # nobody traces the process
    else:
        explained = answer == abi.SECCOMP_RET_ERRNO | event.errno
    return answer if explained else None
