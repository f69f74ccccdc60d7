import tomllib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engines.tomls import texts
from shim.engines import toml
from shim.errors import ShimError

OURS = ("plugins", "io.containerd.grpc.v1.cri", "containerd", "runtimes", "seccomp-shim")
HANDLER = {"runtime_type": "io.containerd.runc.v2", "options": {"SystemdCgroup": True}}


@given(texts(), st.booleans())
def test_statements_are_the_whole_text(text: str, cut: bool) -> None:
    """Joined, the statements give the text back, also without a line feed at its end."""
    text = text.rstrip("\r\n") if cut else text
    assume(_valid(text))
    assert "".join(text[each.start : each.end] for each in toml.statements(text)) == text


@given(texts())
def test_statements_name_what_the_document_holds(text: str) -> None:
    """Every key that a statement names is in the document, and stands there with that value."""
    document = tomllib.loads(text)
    for each in toml.statements(text):
        if each.path and not each.header and not _in_list(document, each.path):
            value = tomllib.loads(f"x = {text[slice(*each.value)]}")["x"]
            found = toml.look_up(document, each.path)
            assert found == value or isinstance(value, dict)


@given(texts())
def test_what_was_appended_is_taken_out_again(text: str) -> None:
    """A table appended adds exactly itself, and without it the text is the old one."""
    longer = toml.append(text, toml.table(OURS, HANDLER))
    assume(_valid(longer))
    document = tomllib.loads(longer)
    assert toml.look_up(document, OURS) == HANDLER
    assert toml.without_table(longer, OURS) == text


@given(texts(), st.sampled_from(["# last\n", "\n\n# of mine\n[mine]\na = 1\n", "[mine]\n", " #"]))
def test_what_others_appended_stays(before: str, after: str) -> None:
    """What has been written behind our table since stays, to the last comment."""
    whole = toml.append(before, toml.table(OURS, HANDLER)) + after
    assume(_valid(whole))
    assert toml.without_table(whole, OURS) == before + after


@given(texts(), st.sampled_from(["name", "default.name", 'q"']))
def test_a_value_is_set_and_nothing_else(text: str, key: str) -> None:
    """A key set in a table is there; setting it back and forth gives the same text."""
    path = (*OURS[:3], key)
    longer = toml.with_value(text, path, "seccomp-shim")
    assume(_valid(longer))
    assert toml.look_up(tomllib.loads(longer), path) == "seccomp-shim"
    again = toml.with_value(longer, path, "runc")
    assert toml.with_value(again, path, "seccomp-shim") == longer
    assert toml.look_up(tomllib.loads(again), path) == "runc"


@pytest.mark.parametrize("line", ['key = "old"', '  key="old"  # why', "key\t=\t'''old'''#x"])
def test_a_value_in_place_keeps_its_line(line: str) -> None:
    """Only the value itself is replaced: indentation, spaces and comment stay."""
    text = f"[a]\n{line}\nother = 1\n"
    done = toml.with_value(text, ("a", "key"), "new")
    assert done.replace('"new"', "V") == text.replace('"old"', "V").replace("'''old'''", "V")


def test_a_new_key_stands_in_its_table() -> None:
    """A key that a table lacks is written under the table's header."""
    done = toml.with_value("[a]\n[b]\n  [b.c] # here\n  x = 1\n", ("b", "c", "key"), "v")
    assert done == '[a]\n[b]\n  [b.c] # here\n  key = "v"\n  x = 1\n'


@given(st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.lists(st.text()))
def test_a_literal_is_read_as_its_value(value: object) -> None:
    """Any text, number, truth or list of texts is written as TOML reads it."""
    assume(_encodable(str(value)))
    assert tomllib.loads(f"x = {toml.literal(value)}") == {"x": value}


@pytest.mark.parametrize("data", [b"a = ", b"[a\n", b"\xff", b"a = 1\na = 2\n", b"[" * 100000])
def test_what_is_no_toml_is_refused(data: bytes) -> None:
    """A text that is no TOML gives one line that names the file."""
    with pytest.raises(ShimError) as caught:
        toml.parse(data, "config.toml")
    assert str(caught.value).startswith("config.toml: is not valid TOML: ")
    assert "\n" not in str(caught.value)


def _valid(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_list(document: object, path: tuple[str, ...]) -> bool:
    for name in path:
        if isinstance(document, list):
            return True
        document = document.get(name) if isinstance(document, dict) else None
    return False
