"""The JSON scanner: strict, and sure of its places."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.profile.jsontext import scanner
from support.profiles import LAYOUTS

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(VALUES, st.sampled_from(sorted(LAYOUTS)))
def test_reads_what_json_writes(value: object, layout: str) -> None:
    """Every value comes back, whatever the layout."""
    assert scanner.parse(LAYOUTS[layout](value)) == value


@given(VALUES, st.data())
def test_accepts_what_json_accepts(value: object, data: st.DataObject) -> None:
    """After a stroke of the pen the scanner and the json package still agree on what is JSON."""
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 2))
    text = (
        text[:at] + data.draw(st.text(alphabet='{}[]",:0-.e \n\\u', max_size=2)) + text[at + cut :]
    )
    assert _outcome(scanner.parse, text) == _outcome(_strict, text)


def _outcome(reader: Callable[[str], object], text: str) -> object:
    try:
        return reader(text)
    except (ValueError, scanner.NotJSON):
        return "refused"


def _strict(text: str) -> object:
    """Read with the json package, but none of its extensions."""
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_none, parse_float=_finite)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("duplicate key")
    return dict(pairs)


def _none(name: str) -> float:
    raise ValueError(name)


def _finite(text: str) -> float:
    if abs(float(text)) == float("inf"):
        raise ValueError(text)
    return float(text)


@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers() | st.text()), min_size=1),
    st.sampled_from(sorted(LAYOUTS)),
)
def test_finds_every_value(tree: dict[str, list[Any]], layout: str) -> None:
    """The place of a value holds the text of just that value, and so do its items'."""
    text = LAYOUTS[layout](tree)
    for key, values in tree.items():
        place = scanner.locate(text, [f"/{key}"])[f"/{key}"]
        assert json.loads(text[place.start : place.end]) == values
        assert [json.loads(text[item.value : item.end]) for item in place.items] == values
        for index, value in enumerate(values):
            inner = scanner.locate(text, [f"/{key}", f"/{key}/{index}"])[f"/{key}/{index}"]
            assert json.loads(text[inner.start : inner.end]) == value
    whole = scanner.locate(text, [""])[""]
    assert text[whole.start : whole.end] == text.strip()
    assert [json.loads("{" + text[i.start : i.end] + "}") for i in whole.items] == [
        {key: values} for key, values in tree.items()
    ]


def test_no_such_place() -> None:
    """A pointer to nothing finds nothing, beside one that does."""
    assert scanner.locate('{"a": [1]}', ["/a/1", "/b", "/a/0/c"]) == {}
    assert list(scanner.locate('{"a": [1]}', ["/a/1", "/a"])) == ["/a"]


@pytest.mark.parametrize(
    ("text", "offset", "words"),
    [
        ("", 0, "ends too early"),
        ("{", 1, "expected a key in double quotes or }"),
        ('{"a"', 4, "ends too early: expected a colon"),
        ('{"a" 1}', 5, "expected a colon"),
        ('{"a": 1', 7, "ends too early: expected a comma or }"),
        ('{"a": 1 "b": 2}', 8, "expected a comma or }"),
        ('{"a": 1,}', 7, "a comma stands before }"),
        ("{'a': 1}", 1, "in double quotes"),
        ("[1, 2,]", 5, "a comma stands before ]"),
        ("[1, 2", 5, "ends too early: expected a comma or ]"),
        ('["ab', 1, "ends inside the string"),
        ('["a\nb"]', 3, "control character"),
        (r'["a\x"]', 3, "escape in a string"),
        ('{"a": 1, "a": 2}', 9, "the key 'a' appears twice"),
        ('{"a": 1, "\\u0061": 2}', 9, "the key 'a' appears twice"),
        ("[NaN]", 1, "expected a JSON value"),
        ("[-Infinity]", 1, "expected a JSON value"),
        ("[1e999]", 1, "out of range"),
        ("[" + "1" * 5000 + "]", 1, "out of range"),
        ("[01]", 2, "expected a comma"),
        ("[truely]", 1, "expected a JSON value"),
        ("[] []", 3, "something follows"),
        ("[" * 100_000, scanner.MAX_DEPTH, "nested more than"),
        ('{"a":' * 100_000, 5 * scanner.MAX_DEPTH, "nested more than"),
        ("\x00", 0, "expected a JSON value"),
    ],
)
def test_says_what_is_wrong(text: str, offset: int, words: str) -> None:
    """Each fault is named, at its place."""
    with pytest.raises(scanner.NotJSON, match=words.replace("(", r"\(")) as error:
        scanner.parse(text)
    assert error.value.offset == offset
