"""A plan held to an earlier one: what was not planned then, and exactly so, is not done now."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from shim.errors import ShimError
from shim.transaction.plan import Plan, empty
from shim.transaction.rollback import add_undo, checksum_now
from shim.transaction.store import State

# File: the checksums of its content, before and after.
Expected = Mapping[str, Sequence[str]]


class Unplanned(NamedTuple):
    """A file that is not changed as planned: why, its checksums if known, if that is a problem."""

    file: str
    reason: str
    before: str
    after: str
    problem: bool


def hold(plan: Plan, expected: Expected) -> Iterator[Unplanned]:
    """Take out of ``plan`` what ``expected`` does not have; tell of that, and of what is missing.

    What has the expected content already is not missing. A file that was not planned for is no
    problem: it came later.
    """
    met = set()
    for each in list(plan.changes):
        known = expected.get(each.path)
        reason = _difference(known, each.before, each.after)
        if known is not None:
            met.add(each.path)
        if reason:
            plan.changes.remove(each)
            yield Unplanned(each.path, reason, each.before, each.after, known is not None)
    refused = dict(plan.refused)
    for file, (before, after) in expected.items():
        if file in met:
            continue
        now, reason = _now(file, (before, after))
        if now == after:
            continue
        if not reason and now != before:
            reason = "its content has changed since"
        yield Unplanned(file, reason or refused.get(file, "nothing is to be done"), now, "", True)


def undoing(opened: State, expected: Expected, *, force: bool) -> Plan:
    """Plan to take the files of ``expected`` from what they were to become back to what they were.

    Whatever run has changed them, and whether or not it lived to tell of it. What somebody has
    changed since is left alone unless ``force`` is given.
    """
    plan = empty("rollback")
    for file, (before, after) in expected.items():
        now, reason = _now(file, (before, after))
        if reason:
            plan.refused.append((file, reason))
        else:
            override = "" if force else "force"
            add_undo(plan, opened, file, [(before, after)], now, override=override)
    return plan


def _difference(known: Sequence[str] | None, before: str, after: str) -> str:
    if known is None:
        return "it is not in the plan"
    if known[0] != before:
        return "its content has changed since"
    return "" if known[1] == after else "it would become something else"


def _now(file: str, known: Sequence[str]) -> tuple[str, str]:
    """Return the checksum of a file as it is, or why there is none."""
    try:
        return checksum_now(file, known), ""
    except FileNotFoundError:
        return "", "it is gone"
    except ShimError as error:
        return "", error.message
    except OSError as error:
        return "", error.strerror or str(error)
