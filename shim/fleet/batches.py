"""Who comes first, who next, and when it is time to stop. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shim.errors import ShimError, counted
from shim.fleet.store import WANTING


def percentage(text: str) -> float:
    """Read a percentage, with or without its sign. ShimError: it is none of 0 to 100."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise ShimError("is no percentage from 0 to 100", subject=text)
    return value


def serial(text: str) -> list[str]:
    """Read the sizes of batches, as Ansible's ``serial``: numbers and percentages, by commas.

    ShimError: one of them is neither.
    """
    sizes = [each.strip() for each in text.split(",")]
    for each in sizes:
        if each.endswith("%"):
            percentage(each)
        elif not each.isdecimal() or not int(each):
            raise ShimError("is neither a number of hosts nor a percentage", subject=each or text)
    return sizes


def batches(
    hosts: Sequence[str],
    kinds: Mapping[str, object],
    *,
    canary: int = 0,
    sizes: Sequence[str] = ("100%",),
) -> list[list[str]]:
    """Divide hosts: ``canary`` of them, then the others in batches of ``sizes``.

    The sizes are Ansible's: a percentage is one of all hosts, rounded down to one at least, and the
    last size holds for the batches that follow. ``kinds`` tells in what hosts differ: canaries are
    of as many kinds as can be, since what goes wrong goes wrong for a kind. Otherwise the order is
    kept.
    """
    first = set(_canaries(hosts, kinds, canary))
    parts = [[each for each in hosts if each in first]]
    left = [each for each in hosts if each not in first]
    while left:
        size = _size(sizes[min(len(parts), len(sizes)) - 1], len(hosts))
        parts.append(left[:size])
        left = left[size:]
    return [part for part in parts if part]


def stop(lines: Iterable[Mapping[str, Any]], max_fail: float) -> str:
    """Say why a roll-out must not go on after a batch with these results; empty: it may.

    A regression always stops it; other failures and hosts that cannot be reached do if they are
    more than ``max_fail`` percent.
    """
    results = [(str(line["host"]), str(line["result"])) for line in lines]
    regressed = [host for host, result in results if result == "regressed"]
    if regressed:
        return f"containers do worse than before on {_some(regressed)}"
    wrong = [host for host, result in results if result in WANTING]
    if len(wrong) * 100 > max_fail * len(results):
        hosts = counted(len(results), "host")
        return f"{len(wrong)} of {hosts} of the batch failed: {_some(wrong)}"
    return ""


def _size(text: str, hosts: int) -> int:
    if not text.endswith("%"):
        return int(text)
    return max(1, int(percentage(text) * hosts / 100))


def _canaries(hosts: Sequence[str], kinds: Mapping[str, object], count: int) -> list[str]:
    groups: dict[str, list[str]] = {}
    for each in hosts:
        groups.setdefault(repr(kinds.get(each)), []).append(each)
    chosen: list[str] = []
    while len(chosen) < min(count, len(hosts)):
        chosen += [group.pop(0) for group in groups.values() if group]
    return chosen[:count]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
