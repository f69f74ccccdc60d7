"""Judge a difference of two filters: is it only catalogue calls, newly allowed on x86-64."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from shim import abi
from shim.catalog import Syscall
from shim.filter.prove import Change, Difference
from shim.filter.regions import Region

# Ranges up to this size are judged number by number; a larger one holds what no catalogue lists.
_SPLIT = 256


@dataclass(frozen=True, slots=True)
class Judged:
    """A change of one call (or a range of numbers too large to be calls), and the opinion of it."""

    change: Change
    name: str
    accepted: bool
    note: str


def judge(
    found: Difference,
    catalogue: dict[str, Syscall],
    name_of: Callable[[int, int], str],
    *,
    by_name: bool,
    also_on: Collection[str] = (),
) -> list[Judged]:
    """Give every change with the opinion of it.

    Accepted are calls of ``catalogue`` that are allowed now, whatever their arguments, on x86-64;
    beside one of them the same call on x32 if ``by_name`` (both filters were made from names, which
    libseccomp looks up for x32 too), and on the architectures ``also_on``. ``name_of`` names a call
    of an audit architecture.
    """
    changes = [each for change in found.changes for each in _numbers(change)]
    numbers = {
        (arch, number): call for call in catalogue.values() for arch, number in call.numbers.items()
    }
    here = {
        call.name
        for change in changes
        if (call := numbers.get(_key(change))) and not _flaw(change) and _on(change, "x86_64")
    }
    result = []
    for change in changes:
        call = numbers.get(_key(change))
        name = call.name if call else _name(change, name_of)
        if flaw := _flaw(change):
            accepted, note = False, flaw
        elif call is None:
            accepted, note = False, "not in the catalogue"
        elif _on(change, "x86_64"):
            accepted, note = True, f"catalogue, {call.kind}"
        elif name not in here:
            accepted, note = False, "not allowed on x86_64 beside it"
        elif _on(change, "x32") and by_name:
            accepted, note = True, f"x32 twin of {name}, added by name"
        elif change.arch_name in also_on:
            accepted, note = True, f"{change.arch_name} twin of {name}, accepted by --also-on"
        else:
            accepted, note = False, f"{change.arch_name} twin of {name}"
        result.append(Judged(change, name, accepted, note))
    return result


def _numbers(change: Change) -> Iterator[Change]:
    region = change.nr
    if not region.is_range or region.high - region.low >= _SPLIT:
        yield change
        return
    for number in range(region.low, region.high + 1):
        yield replace(change, nr=Region(number, number))


def _flaw(change: Change) -> str:
    if change.condition:
        return "under a condition on arguments"
    if change.after != abi.SECCOMP_RET_ALLOW:
        return "not allowed now"
    if change.nr.single is None or change.arch.single is None:
        return "more than one call"
    return ""


def _on(change: Change, arch: str) -> bool:
    return change.arch_name == arch


def _key(change: Change) -> tuple[str, int]:
    number = change.nr.low
    if change.is_x32:
        number &= ~abi.X32_SYSCALL_BIT
    return change.arch_name, number


def _name(change: Change, name_of: Callable[[int, int], str]) -> str:
    if change.arch.single is None or change.nr.single is None:
        return ""
    return name_of(change.arch.single, change.nr.single)
