"""Who would die: every process that has a filter, by container, unit or itself."""

import os
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from shim import abi, catalog
from shim.errors import ShimError
from shim.host import processes
from shim.host.cache import facts
from shim.risk import container_names
from shim.risk.groups import Place
from shim.risk.live_filters import Process, owner, read, read_one
from shim.risk.outlook import DENIED, DIES, GRAVITY, SAFE, UNDECIDED, UNREAD, Call, Outlook, outlook
from shim.risk.ownership import where_is
from shim.risk.verdict import within

# Of processor time for verdicts: a container's filters take a millisecond, and what is intricate
# up to 0.15 s for each filter and call (shim.bpf.outcomes).
_SECONDS = 20.0
_SECONDS_EACH = 1.0
_I386 = "{}; but a program of 32 bits, whose probes make no call unless it changes its mode"

# Of a call that a kernel injects: a filter decides, or it cannot be told that none does.
DECIDING = ("filtered", "unknown")


class ScannedProcess(NamedTuple):
    """A process with its outlook for each call, by name."""

    process: Process
    outlooks: dict[str, Outlook]


class Group(NamedTuple):
    """The processes of one container or unit, or a single process."""

    place: Place
    known: container_names.Known
    seen: list[ScannedProcess]

    def worst(self, call: str) -> Outlook:
        """Return the gravest outlook of its processes for a call."""
        each = [one.outlooks[call] for one in self.seen]
        return min(each, key=lambda one: GRAVITY.index(one.outcome))


class Scan(NamedTuple):
    """What was found; ``states`` are the kernel's for each call."""

    calls: list[Call]
    states: dict[str, str]
    groups: list[Group]
    seconds: float
    unnamed: list[str]

    def decides(self, call: str) -> bool:
        """Tell whether this kernel leaves the call to filters, or may do so."""
        return self.states[call] in DECIDING

    def endangered(self, *, here: bool = True) -> list[ScannedProcess]:
        """Return who would die or be denied ``here``, or on a kernel that lets filters decide."""
        names_ = [call.name for call in self.calls if not here or self.decides(call.name)]
        return [
            one
            for group in self.groups
            for one in group.seen
            if any(_endangers(one.outlooks[name], name) for name in names_)
        ]

    def unread(self, *, here: bool = True) -> list[ScannedProcess]:
        """Return who was not read, of whom nothing is known ``here``, or elsewhere."""
        if here and not any(self.decides(call.name) for call in self.calls):
            return []
        return [
            one
            for group in self.groups
            for one in group.seen
            if any(each.outcome == UNREAD for each in one.outlooks.values())
        ]

    def stops(self) -> tuple[int, int, int]:
        """Return how many threads stood, and for how many microseconds: median and most."""
        each = sorted(
            us for group in self.groups for one in group.seen for us in one.process.stopped
        )
        return (len(each), each[len(each) // 2], each[-1]) if each else (0, 0, 0)


def _endangers(found: Outlook, name: str) -> bool:
    return found.outcome in (DIES, UNDECIDED) or (found.outcome == DENIED and name != "uprobe")


def calls(wanted: Sequence[str] = ()) -> list[Call]:
    """Return the calls of these names; of none: those that kernels inject. ShimError: unknown."""
    injected = catalog.kernel_injected()
    found = []
    for name in wanted or list(injected):
        if (
            name.startswith(abi.TEST_SYSCALL)
            and (nr := name.removeprefix(abi.TEST_SYSCALL)).isdigit()
        ):
            if int(nr) not in abi.TEST_SYSCALLS:
                raise ShimError(
                    "is no test system call",
                    subject=name,
                    hint=f"{abi.TEST_SYSCALLS.start} to {abi.TEST_SYSCALLS.stop - 1}",
                )
            found.append(Call(name, int(nr), injected=True))
            continue
        number = injected[name].numbers["x86_64"] if name in injected else _number(name)
        if number is None:
            raise ShimError("is no system call of x86-64 that is known here", subject=name)
        found.append(Call(name, number, name in injected))
    return found


def _number(name: str) -> int | None:
    from shim.catalog.table import numbers  # all of them, which nobody needs who names no call

    return numbers()["x86_64"].get(name)


def state(call: Call) -> str:
    """Return what this kernel does with a call under a filter, as ``probe`` has found."""
    known = facts()["syscalls"].get(call.name)
    return str(known["state"]) if known else "filtered"


def scan(
    asked: Sequence[Call],
    *,
    pids: Collection[int] | None = None,
    named: bool = True,
    gone_is_error: bool = True,
    seconds: float = 60,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Scan:
    """Look at all processes, or at ``pids``.

    Without ``named`` no engine is asked. After ``seconds`` the rest is not read. ShimError: there
    is no such process.
    """
    began = time.monotonic()
    everyone = pids is None
    looked = read(
        sorted(processes.pids() if pids is None else pids), seconds=seconds, done=progress
    )
    found: dict[object, tuple[Place, list[Process]]] = {}
    for process in looked:
        where = where_is(process.pid, process.cgroup, nested=process.nested)
        if everyone and not process.mode and where.kind != "container":
            continue  # of those without a filter, containers alone are of interest
        key: object = where if where.kind == "container" else (where, process.pid)
        if where.kind == "unit":
            key = where
        found.setdefault(key, (where, []))[1].append(process)
    if (
        pids is not None
        and gone_is_error
        and (gone := set(pids) - {p.pid for _, of in found.values() for p in of})
    ):
        raise ShimError("there is no such process", subject=str(min(gone)))
    containers = {where for where, _ in found.values() if where.kind == "container"}
    records = container_names.EngineRecords(containers if named else ())
    judge = _Judge(asked)
    groups = []
    for where, of in found.values():
        known = records.known(where)
        seen = [judge.seen(each, where, known.mechanism) for each in of]
        groups.append(Group(where, known, seen))
    return Scan(
        list(asked),
        {call.name: state(call) for call in asked},
        sorted(groups, key=lambda each: (each.place.kind, each.known.engine, each.known.name)),
        time.monotonic() - began,
        records.silent,
    )


class _Judge:
    """Judges processes, each owner's and all of them in limited time: filters may be intricate.

    Whom it does not come to is undecided. An owner is a container, or a user.
    """

    def __init__(self, asked: Sequence[Call]) -> None:
        self.asked = asked
        self.spent: dict[object, float] = {}
        self.until = time.process_time() + _SECONDS
        self.judged: dict[object, dict[str, Outlook]] = {}

    def seen(self, process: Process, where: Place, mechanism: str = "") -> ScannedProcess:
        """Judge one process; what is decided of one is so of all that have the same."""
        sets = tuple((each.programs, each.threads) for each in process.sets)
        same = (sets, process.mode, process.threads, process.in_32_bits, where.kind, mechanism)
        if not process.unread and not process.partly and same in self.judged:
            return ScannedProcess(process, self.judged[same])
        who = owner(process, where)
        began, spent = time.process_time(), self.spent.get(who, 0.0)
        with within(min(self.until - began, _SECONDS_EACH - spent)):
            found = _seen(process, self.asked, where, mechanism)
        self.spent[who] = spent + time.process_time() - began
        if all(each.outcome in (DIES, DENIED, SAFE) for each in found.outlooks.values()):
            self.judged[same] = found.outlooks
        return found


def _seen(
    process: Process, asked: Sequence[Call], where: Place, mechanism: str = ""
) -> ScannedProcess:
    contained = where.kind == "container"
    told = {
        call.name: outlook(process, call, contained=contained, mechanism=mechanism)
        for call in asked
    }
    if process.in_32_bits:
        # arch/x86/kernel/uprobes.c: only 64-bit code gets a trampoline that makes a call. Whether
        # it is 64-bit code at that moment its program decides, and so it does what it says it is.
        told = {
            name: each._replace(outcome=UNDECIDED, signal="", why=_I386.format(each.why))
            if each.outcome == DIES and name in catalog.kernel_injected()
            else each
            for name, each in told.items()
        }
    return ScannedProcess(process, told)


def one(pid: int, asked: Sequence[Call]) -> tuple[Place, ScannedProcess]:
    """Return where process ``pid`` is, and its outlook, without asking any engine.

    ShimError: there is no such process.
    """
    process = read_one(pid)
    if process is None:
        raise ShimError("there is no such process", subject=str(pid))
    where = where_is(process.pid, process.cgroup, nested=process.nested)
    return where, _Judge(asked).seen(process, where)


def refuse_without_root() -> None:
    """Refuse where nothing could be read. ShimError: we are not root, or under a filter."""
    if os.geteuid() != 0:
        raise ShimError("only root can read the filters of processes", hint="run it with sudo")
    if processes.status_of("self", ("Seccomp",)).get("Seccomp") not in (None, ["0"]):
        raise ShimError(
            "the kernel tells filters to nobody who is under one",
            hint="run it on the host, outside of containers",
        )
