"""What a file becomes when our edits of it are undone, decided once for all that undoes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.transaction.rollback import undone


@given(st.lists(st.booleans(), max_size=8), st.data())
def test_our_edits_in_a_row_are_undone(whose: list[bool], data: st.DataObject) -> None:
    """Down to what somebody else made, or what was there first; and no edit of others is."""
    contents = [str(number) for number in range(len(whose) + 1)]
    ours = [pair for pair, our in zip(itertools.pairwise(contents), whose, strict=True) if our]
    now = data.draw(st.integers(0, len(whose)))
    back = now
    while back and whose[back - 1]:
        back -= 1
    known = back != now or (now < len(whose) and whose[now])
    assert undone(ours, contents[now]) == (contents[back] if known else None)


@given(
    st.lists(st.text("abc", min_size=1, max_size=1), min_size=1, max_size=5),
    st.text("abc", max_size=1),
)
def test_whatever_was_written_for_an_engine_gives_the_original_back(
    written: list[str], now: str
) -> None:
    """An engine's record has one original and all that we wrote instead of it."""
    edits = [("original", each) for each in written]
    assert undone(edits, now) == ("original" if now in written else None)
    assert undone(edits, "original") == "original"


@pytest.mark.parametrize("edits", [[], [("a", "b")], [("a", "b"), ("b", "c")]])
def test_what_somebody_else_made_is_not_undone(edits: list[tuple[str, str]]) -> None:
    """It is for the caller to refuse, to overwrite, or to take out what is ours."""
    assert undone(edits, "theirs") is None


def test_a_content_that_came_back_is_gone_through_once() -> None:
    """Edits to and fro end, at what was there before the first."""
    assert undone([("a", "b"), ("b", "a")], "a") == "a"
    assert undone([("b", "a"), ("a", "b")], "b") == "b"
