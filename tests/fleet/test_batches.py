"""Who comes first, who next, and when a roll-out stops."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import ShimError
from shim.fleet.batches import batches, percentage, stop

NAMES = st.lists(st.text("abc", min_size=1, max_size=6), unique=True, min_size=1, max_size=40)


@given(NAMES, st.integers(0, 50), st.floats(0, 100), st.dictionaries(st.text("abc"), st.text()))
def test_every_host_is_in_one_batch(
    names: list[str], canary: int, percent: float, kinds: dict[str, str]
) -> None:
    """However hosts are divided, each is there once, and the order within a batch is kept."""
    parts = batches(names, kinds, canary=canary, percent=percent)
    assert sorted(each for part in parts for each in part) == sorted(names)
    assert all(parts)
    for part in parts:
        assert part == sorted(part, key=names.index)


@given(NAMES, st.floats(0.1, 100))
def test_a_batch_is_no_larger_than_asked_for(names: list[str], percent: float) -> None:
    """A batch has that share of the hosts, rounded up to a whole host."""
    parts = batches(names, {}, percent=percent)
    largest = max(1, math.ceil(len(names) * percent / 100))
    assert {len(part) for part in parts[:-1]} <= {largest}
    assert len(parts[-1]) <= largest


@given(NAMES, st.integers(1, 50))
def test_canaries_are_as_many_as_asked_for(names: list[str], canary: int) -> None:
    """The first batch has so many hosts, or all if there are fewer."""
    assert len(batches(names, {}, canary=canary)[0]) == min(canary, len(names))


def test_canaries_are_of_every_kind() -> None:
    """Of hosts of three kinds three canaries are one of each."""
    names = [f"a{n}" for n in range(9)] + ["b1", "c1"]
    kinds = {name: name[0] for name in names}
    assert batches(names, kinds, canary=3)[0] == ["a0", "b1", "c1"]
    assert batches(names, kinds, canary=4)[0] == ["a0", "a1", "b1", "c1"]


@pytest.mark.parametrize(
    ("results", "max_fail", "why"),
    [
        (["changed", "unchanged"], 0, ""),
        (["changed", "failed"], 0, "1 of 2 hosts of the batch failed: h1"),
        (["changed", "unreachable"], 49, "1 of 2 hosts of the batch failed: h1"),
        (["changed", "failed"], 50, ""),
        (["failed"] * 5, 100, ""),
        (["failed"] * 5, 99.9, "5 of 5 hosts of the batch failed: h0, h1, h2 and 2 more"),
        (["changed", "regressed"], 100, "containers do worse than before on h1"),
    ],
)
def test_what_stops_a_rollout(results: list[str], max_fail: float, why: str) -> None:
    """A regression always does, failures do where they are more than was allowed."""
    lines = [{"host": f"h{n}", "result": result} for n, result in enumerate(results)]
    assert stop(lines, max_fail) == why


@pytest.mark.parametrize(("text", "value"), [("10", 10), ("2.5%", 2.5), ("0", 0), ("100%", 100)])
def test_percentages_are_read(text: str, value: float) -> None:
    """With and without the sign."""
    assert percentage(text) == value


@pytest.mark.parametrize("text", ["", "ten", "-1", "101", "nan", "10%%", "inf"])
def test_what_is_no_percentage_is_refused(text: str) -> None:
    """Anything else is an error that names it."""
    with pytest.raises(ShimError, match="is no percentage"):
        percentage(text)
