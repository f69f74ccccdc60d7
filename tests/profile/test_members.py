"""Members of an object put in, replaced and taken out in its text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.profile.jsontext.members import drop, put

VALUE = {"path": "/x", "args": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{}\n", '{\n  "new": true\n}\n'),
        ('{"a":1}', '{"new":true,"a":1}'),
        ('{ "a": 1, "b": 2 }', '{ "new": true, "a": 1, "b": 2 }'),
        ('{\n\t"a": 1\n}\n', '{\n\t"new": true,\n\t"a": 1\n}\n'),
        ('{\r\n   "a" : 1\r\n}', '{\r\n   "new" : true,\r\n   "a" : 1\r\n}'),
    ],
)
def test_a_new_member_is_the_first_and_laid_out_like_its_neighbour(text: str, wanted: str) -> None:
    """No line but the new member's own changes; taking it out again gives the text back."""
    assert put(text, ["new"], True) == wanted
    if text != "{}\n":
        assert drop(wanted, ["new"]) == text


def test_a_member_of_a_member_keeps_the_indentation() -> None:
    """What is put deeper is indented deeper, by the text's own step, also in an empty object."""
    text = '{\n    "a": {},\n    "b": 1\n}'
    wanted = '{\n    "a": {\n        "new": [\n            1\n        ]\n    },\n    "b": 1\n}'
    assert put(text, ["a", "new"], [1]) == wanted


def test_a_value_is_replaced_where_it_stands() -> None:
    """Replacing touches the value alone."""
    assert put('{"a" :1,  "b": 2}', ["a"], "x") == '{"a" :"x",  "b": 2}'


def test_dropping_what_is_not_there_changes_nothing() -> None:
    """A text without the member stays as it is; an object on the way must be there."""
    assert drop('{"a": 1}', ["b"]) == '{"a": 1}'
    with pytest.raises(KeyError):
        drop('{"a": 1}', ["b", "c"])


def test_keys_are_compared_as_they_read() -> None:
    """An escaped key is found, and one that looks like a path is not taken for one."""
    assert drop('{"\\u0061": 1}', ["a"]) == "{}"
    text = '{"a/b": {"x": 1}, "a": {"b": {}}}'
    assert json.loads(put(text, ["a", "b", "x"], 2)) == {"a/b": {"x": 1}, "a": {"b": {"x": 2}}}


@given(
    tree=st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), min_size=1),
    key=st.text(max_size=4),
    indent=st.sampled_from([None, 0, 1, 4, "\t"]),
    colon=st.sampled_from([":", ": ", " : "]),
)
def test_put_and_drop_are_undone_by_each_other(
    tree: dict[str, object], key: str, indent: int | str | None, colon: str
) -> None:
    """Whatever the object and its layout: putting a new member and dropping it is the identity."""
    text = json.dumps(tree, indent=indent, separators=(",", colon))
    there = put(text, [key], VALUE)
    assert json.loads(there) == tree | {key: VALUE}
    if key in tree:
        assert json.loads(drop(there, [key])) == {k: v for k, v in tree.items() if k != key}
    else:
        assert drop(there, [key]) == text


_LINES = st.lists(
    st.tuples(st.sampled_from(["", " ", "  ", "    ", "\t", " \t"]), st.text("ab", max_size=2)),
    min_size=1,
    unique_by=lambda line: line[1],
)


@given(
    lines=_LINES, newline=st.sampled_from(["\n", "\r\n", "\n\n"]), end=st.sampled_from(["", "\t"])
)
def test_lines_of_any_indentation_stay_as_they_are(
    lines: list[tuple[str, str]], newline: str, end: str
) -> None:
    """What is put in is lines of its own, however the others are indented; so is what is taken."""
    members = f",{newline}".join(f"{indent}{json.dumps(key)}: [1]" for indent, key in lines)
    text = f"{{{newline}{members}{newline}{end}}}{newline}"
    head = text.index(newline) + len(newline)
    for value in (True, {"path": "/x"}):
        after = put(text, ["new"], value)
        assert json.loads(after) == json.loads(text) | {"new": value}
        assert after.startswith(text[:head])
        assert after.endswith("\n" + text[head:])
        assert drop(after, ["new"]) == text
    if len(lines) > 1:
        (indent, key), *_ = lines
        gone = f"{indent}{json.dumps(key)}: [1],{newline}"
        assert drop(text, [key]) == text[:head] + text[head + len(gone) :]
