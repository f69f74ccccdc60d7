"""Assess a difference of two filters: is it only catalogue calls, newly allowed."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from shim import abi
from shim.bpf.equivalence import Difference, VerdictChange
from shim.bpf.ranges import Region
from shim.catalog import Syscall, kernel_injected
from shim.catalog.table import OFFSETS, is_call, numbers

_LETTING = (
    abi.SECCOMP_RET_ALLOW,
    abi.SECCOMP_RET_LOG,
    abi.SECCOMP_RET_TRACE,
    abi.SECCOMP_RET_USER_NOTIF,
)
# The note of a call that gets ENOSYS now.
UNNAMED = "refused before and after; no rule names it"
# Ranges up to this size are judged number by number; a larger one holds what no catalogue lists.
_SPLIT = 256


@dataclass(frozen=True, slots=True)
class Assessed:
    """A change of one call (or a range of numbers too large to be calls), and the opinion of it."""

    change: VerdictChange
    name: str
    accepted: bool
    note: str


def assess(
    found: Difference,
    catalogue: dict[str, Syscall],
    name_of: Callable[[int, int], str],
    *,
    by_name: bool,
    also_on: Collection[str] = (),
    native: str = "x86_64",
    unnamed: Collection[str] = (),
) -> list[Assessed]:
    """Return every change with the opinion of it.

    Accepted are calls of ``catalogue`` that are allowed now, whatever their arguments, on
    ``native``; beside one of them the same call on x32 if ``by_name`` (both filters were made from
    names, which libseccomp looks up for x32 too), and on the architectures ``also_on``; and numbers
    that no program calls, denied before and after. Of the calls ``unnamed``, which no rule names,
    also that they are answered with ENOSYS now and were with another errno before. ``name_of``
    names a call of an audit architecture.
    """
    changes = [each for change in found.changes for each in _numbers(change)]
    listed = {
        (arch, number + OFFSETS.get(arch, 0)): call
        for call in catalogue.values()
        for arch, number in call.numbers.items()
    }
    here = {
        call.name
        for change in changes
        if (call := listed.get(_key(change))) and not _flaw(change) and _on(change, native)
    }
    result = []
    for change in changes:
        call = listed.get(_key(change))
        name = call.name if call else _name(change, name_of)
        if unnamed and _is_enosys_now(change, name, unnamed):
            accepted, note = True, UNNAMED
        elif _is_idle(change, change.nr.low):
            accepted, note = True, "denied before and after, and no program calls it"
        elif flaw := _flaw(change):
            accepted, note = False, flaw
        elif call is None:
            accepted, note = False, "not in the catalogue"
        elif _on(change, native):
            accepted, note = True, f"catalogue, {call.kind}"
        elif name not in here:
            accepted, note = False, f"not allowed on {native} beside it"
        elif _on(change, "x32") and by_name:
            accepted, note = True, f"x32 twin of {name}, added by name"
        elif change.arch_name in also_on:
            accepted, note = True, f"{change.arch_name} twin of {name}, accepted by --also-on"
        else:
            accepted, note = False, f"{change.arch_name} twin of {name}"
        result.append(Assessed(change, name, accepted, note))
    return result


def _numbers(change: VerdictChange) -> Iterator[VerdictChange]:
    region = change.nr
    if not region.is_range or region.high - region.low >= _SPLIT:
        yield change
        return
    span = range(region.low, region.high + 1)
    for empty, run in groupby(span, lambda number: _is_idle(change, number)):
        each = list(run)
        for low, high in [(each[0], each[-1])] if empty else zip(each, each, strict=True):
            yield replace(change, nr=Region(low, high))


def _is_idle(change: VerdictChange, number: int) -> bool:
    """Tell whether two denials of a number differ that no program calls.

    No kernel has a call for it, or the kernel alone makes it, to which all denials are the same.
    """
    bit = abi.X32_SYSCALL_BIT if change.is_x32 else 0
    key = change.arch_name
    injected = [call.numbers.get(key) for call in kernel_injected().values()]
    return (
        key in numbers()
        and {change.before, change.after}.isdisjoint(_LETTING)
        and (not is_call(key, number & ~bit) or number & ~bit in injected)
    )


def _is_enosys_now(change: VerdictChange, name: str, unnamed: Collection[str]) -> bool:
    """Tell whether calls that no rule names got some errno, and get ENOSYS now, whatever arguments.

    Several numbers are what runc answers to all above its line.
    """
    errno = change.before & abi.SECCOMP_RET_ACTION_FULL == abi.SECCOMP_RET_ERRNO
    if not errno or change.condition or change.after != abi.SECCOMP_RET_ENOSYS:
        return False
    if change.arch.single is None or change.nr.single is not None:
        return name in unnamed
    bit = abi.X32_SYSCALL_BIT if change.is_x32 else 0
    region, table = change.nr, numbers().get(change.arch_name, {})
    inside = {call for call, nr in table.items() if region.low <= nr | bit <= region.high}
    return bool(table) and region.is_range and inside <= {*unnamed}


def _flaw(change: VerdictChange) -> str:
    if change.condition:
        return "under a condition on arguments"
    if change.after != abi.SECCOMP_RET_ALLOW:
        if {change.before, change.after}.isdisjoint(_LETTING):
            return "denied before and after, but answered otherwise"
        return "not allowed now"
    if change.nr.single is None or change.arch.single is None:
        return "more than one call"
    return ""


def _on(change: VerdictChange, arch: str) -> bool:
    return change.arch_name == arch


def _key(change: VerdictChange) -> tuple[str, int]:
    return change.arch_name, change.nr.low


def _name(change: VerdictChange, name_of: Callable[[int, int], str]) -> str:
    if change.arch.single is None or change.nr.single is None:
        return ""
    return name_of(change.arch.single, change.nr.single)
