"""One place of a JSON text is changed, and every other character stays."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import ShimError
from shim.start.spec import parse

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner),
    max_leaves=12,
)
KEYS = ("linux", "seccomp", "syscalls")
layouts = st.sampled_from([None, 0, 1, "\t"])


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a config.json, in which any part of the way to the place may be missing or null."""
    place: Any = draw(st.lists(values, max_size=3) | st.none())
    for key in reversed(KEYS):
        members = draw(st.dictionaries(texts, values, max_size=3))
        members = {k: v for k, v in members.items() if k.lower() != key}
        if draw(st.integers(0, 5)):
            names = [*members, key]
            members = {name: members.get(name, place) for name in draw(st.permutations(names))}
        place = members if draw(st.integers(0, 9)) or key == KEYS[0] else None
    document: dict[str, Any] = place
    return document


def add(text: str, keys: tuple[str, ...], item: str, *, last: bool = False) -> str:
    """Add ``item`` to a text, which is then read again."""
    return parse(text).add(keys, item, last=last).proved()


def put(text: str, keys: tuple[str, ...], value: str) -> str:
    """Put ``value`` into a text, which is then read again."""
    return parse(text).put(keys, value).proved()


def remove(text: str, keys: tuple[str, ...]) -> str:
    """Remove a member from a text, which is then read again."""
    return parse(text).remove(keys).proved()


def with_place(document: dict[str, Any], change: Any) -> dict[str, Any]:
    """Return the document with the place changed in the tree."""
    copy = json.loads(json.dumps(document))
    where = copy
    for key in KEYS[:-1]:
        if where.get(key) is None:
            where[key] = {}
        where = where[key]
    where[KEYS[-1]] = change(where.get(KEYS[-1]))
    result: dict[str, Any] = copy
    return result


@given(documents(), values, layouts, st.booleans())
def test_an_element_is_added(
    document: dict[str, Any], item: Any, indent: int | str | None, last: bool
) -> None:
    """As first or last element; what is missing or null on the way is made."""
    text = json.dumps(document, indent=indent)
    new = add(text, KEYS, json.dumps(item), last=last)
    expected = with_place(
        document, lambda old: [*(old or ()), item] if last else [item, *(old or ())]
    )
    assert json.loads(new) == expected


@given(documents(), values, layouts)
def test_a_value_is_put(document: dict[str, Any], value: Any, indent: int | str | None) -> None:
    """In place of what is there, or where nothing is."""
    text = json.dumps(document, indent=indent)
    assert json.loads(put(text, KEYS, json.dumps(value))) == with_place(document, lambda _: value)


@given(documents(), values, layouts)
def test_what_was_added_is_removed(
    document: dict[str, Any], value: Any, indent: int | str | None
) -> None:
    """To the letter where it was added to something, and nothing else with it."""
    text = json.dumps({**document, "annotations": {"a": 1}}, indent=indent)
    place = ("annotations", "ours")
    assert remove(add(text, place[:1], f'"ours":{json.dumps(value)}'), place) == text
    (after,) = [json.loads(remove(text, ("annotations", "a")))]
    assert after == {**document, "annotations": {}}
    more = json.dumps({**document, "annotations": {"b": 1, "a": 1}}, indent=indent)
    assert json.loads(remove(more, ("annotations", "a"))) == {**document, "annotations": {"b": 1}}


def test_all_else_stays_as_it_was() -> None:
    """Numbers that no double holds, odd spacing and escapes survive."""
    text = '\n{ "a" : 1.50 ,"n":1E400, "annotations":{ },"b":"\\u00e9\\/"\t}\n'
    assert add(text, ("annotations",), '"k":"v"') == text.replace("{ }", '{"k":"v" }')
    assert add(text, ("c", "d"), "1") == text.replace("{ ", '{"c":{"d":[1]}, ', 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"linux": {}, "linux": {}}',
        '{"linux": {}, "Linux": {}}',
        '{"LINUX": {}}',
        '{"linux": []}',
        '{"linux": {"seccomp": 1}}',
        '{"linux": {"seccomp": {"syscalls": "x"}}}',
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(text: str) -> None:
    """Go takes keys of any case and the last of two: nobody shall read another place than ours."""
    with pytest.raises(ShimError):
        add(text, KEYS, "1")
