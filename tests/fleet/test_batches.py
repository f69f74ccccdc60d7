"""Who comes first, who next, and when a roll-out stops."""

import pytest
from ansible.utils.helpers import pct_to_int
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import ShimError
from shim.fleet.batches import batches, percentage, serial, stop

NAMES = st.lists(st.text("abc", min_size=1, max_size=6), unique=True, min_size=1, max_size=40)


SIZE = st.integers(1, 50).map(str) | st.integers(0, 100).map("{}%".format)
SIZES = st.lists(SIZE, min_size=1, max_size=4)


@given(NAMES, st.integers(0, 50), SIZES, st.dictionaries(st.text("abc"), st.text()))
def test_every_host_is_in_one_batch(
    names: list[str], canary: int, sizes: list[str], kinds: dict[str, str]
) -> None:
    """However hosts are divided, each is there once, and the order within a batch is kept."""
    parts = batches(names, kinds, canary=canary, sizes=sizes)
    assert sorted(each for part in parts for each in part) == sorted(names)
    assert all(parts)
    for part in parts:
        assert part == sorted(part, key=names.index)


@given(NAMES, SIZES)
def test_batches_are_those_of_ansible(names: list[str], sizes: list[str]) -> None:
    """Hosts are divided as Ansible divides them for the same ``serial``."""
    left, expected = list(names), list[list[str]]()
    wanted = [pct_to_int(each, len(names)) for each in sizes]
    while left:
        size = wanted[min(len(expected), len(wanted) - 1)]
        expected.append(left[:size])
        left = left[size:]
    assert batches(names, {}, sizes=sizes) == expected


@given(NAMES, st.integers(0, 9), SIZES)
def test_canaries_come_before_the_batches(names: list[str], canary: int, sizes: list[str]) -> None:
    """After them the first size holds for the first batch."""
    parts = batches(names, {}, canary=canary, sizes=sizes)
    first, *rest = parts if canary else [[], *parts]
    assert len(first) == min(canary, len(names))
    if rest:
        assert len(rest[0]) == min(pct_to_int(sizes[0], len(names)), len(names) - len(first))


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


@pytest.mark.parametrize("text", ["", "ten", "0", "1,", "-1", "1.5", "101%", "10%%", ","])
def test_what_is_no_size_is_refused(text: str) -> None:
    """A size is a number of hosts or a percentage."""
    with pytest.raises(ShimError):
        serial(text)


def test_sizes_are_read() -> None:
    """Several are parted by commas."""
    assert serial("1, 10%,100%") == ["1", "10%", "100%"]
