"""Profiles read strictly: which format, and what is wrong where."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import ShimError
from shim.profile.document import MAX_BYTES, read
from support.profiles import ALLOW, CONFIG, DOCKER, FORMATS, OCI, changed, ruled, texts


def error_of(data: bytes) -> str:
    """Return the one line that ``data`` is refused with."""
    with pytest.raises(ShimError) as error:
        read(data, "p.json")
    line = str(error.value)
    assert line.isprintable()
    return line


@pytest.mark.parametrize("name", FORMATS)
def test_tells_formats_apart(name: str) -> None:
    """Each format is known by its content."""
    document = read(json.dumps(FORMATS[name]).encode(), "p.json")
    assert document.format.name == name
    assert document.tree == FORMATS[name]
    assert document.seccomp == (OCI if name == "config.json" else FORMATS[name])


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        (ruled(), "oci"),
        (ruled({"action": ALLOW}), "oci"),
        (ruled({"action": ALLOW, "comment": ""}), "docker"),
        (ruled({"action": ALLOW}, {"action": ALLOW, "includes": {}}), "docker"),
        (ruled({"action": ALLOW, "excludes": None}), "docker"),
        (ruled({"names": [], "name": "read", "action": ALLOW}), "docker"),
        ({"defaultAction": ALLOW}, "oci"),
        ({}, "oci"),
        ({"ociVersion": "1.0.2"}, "config.json"),
        ({"linux": {}}, "config.json"),
        ({"ociVersion": "1", "linux": None}, "config.json"),
    ],
)
def test_tells_small_ones_apart(tree: dict[str, Any], name: str) -> None:
    """One key that only Docker has makes a Docker profile; a plain one is read as OCI's."""
    assert read(json.dumps(tree).encode(), "p.json").format.name == name


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "p.json: the file is empty"),
        (b" \n", "p.json: the file is empty"),
        (b"{\n}\n}", "p.json:3:1: not valid JSON: something follows the JSON document"),
        (b'{"defaultAction":\n "SCMP', "p.json:2:2: not valid JSON: the text ends inside"),
        (b'\xef\xbb\xbf{"a": 1}', "p.json:1:1: begins with a byte order mark"),
        (b'{"a":\n "\xff"}', "p.json:2:3: not valid UTF-8"),
        (b'{"\xc3\xa9": "\xc3"}', "p.json:1:8: not valid UTF-8"),
        ("{}".encode("utf-16"), "p.json:1:1: not valid UTF-8"),
        (b" " * (MAX_BYTES + 1), "p.json: is larger than 2 MiB: no profile is"),
        (b"[]", "p.json:1:1: the profile must be an object"),
        (b"\n  3", "p.json:2:3: the profile must be an object"),
        (b'{"a": 1}', "p.json:1:1: is no profile: has none of defaultAction"),
        (b'{"syscalls": []}', ""),
        (b'{\n "syscalls": [{}]}', "p.json:2:15: /syscalls/0 lacks action"),
    ],
)
def test_names_the_place(data: bytes, line: str) -> None:
    """Whatever is wrong with the bytes is told with file, line and column."""
    if line:
        assert error_of(data).startswith(line)
    else:
        assert read(data, "p.json").tree == {"syscalls": []}


ARGUMENT = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}
WRONG: list[tuple[dict[str, Any], str, object, str]] = [
    (OCI, "/defaultAction", "SCMP_ACT_MAYBE", "unknown action SCMP_ACT_MAYBE"),
    (OCI, "/defaultAction", 1, "must be a string"),
    (OCI, "/defaultErrnoRet", "1", "must be a whole number"),
    (OCI, "/defaultErrnoRet", True, "must be a whole number"),
    (OCI, "/architectures", "SCMP_ARCH_X86", "must be a list"),
    (OCI, "/architectures/1", "SCMP_ARCH_VAX", "unknown architecture SCMP_ARCH_VAX"),
    (OCI, "/flags", "x", "must be a list"),
    (OCI, "/syscalls", {}, "must be a list"),
    (OCI, "/syscalls/0", [], "must be an object"),
    (OCI, "/syscalls/0/names", "read", "must be a list"),
    (OCI, "/syscalls/0/names/1", None, "must be a string"),
    (OCI, "/syscalls/0/action", "ALLOW", "unknown action ALLOW"),
    (OCI, "/syscalls/0/errnoRet", -1, "must be a whole number"),
    (OCI, "/syscalls/0/errnoRet", 1.5, "must be a whole number"),
    (OCI, "/syscalls/1/args/0/op", "SCMP_CMP_ALMOST", "unknown operator SCMP_CMP_ALMOST"),
    (OCI, "/syscalls/1/args/0/index", 6, "must be a whole number from 0 to 5"),
    (OCI, "/syscalls/1/args/0/value", 2**64, "must be a whole number"),
    (OCI, "/syscalls/1/args/0/valueTwo", "0", "must be a whole number"),
    (DOCKER, "/archMap/0/architecture", "amd64", "unknown architecture amd64"),
    (DOCKER, "/archMap/0/subArchitectures/0", 3, "must be a string"),
    (DOCKER, "/archMap/0/architecture", None, "lacks architecture"),
    (DOCKER, "/architectures", ["SCMP_ARCH_X86_64"], "both archMap and architectures"),
    (DOCKER, "/syscalls/0/name", "mkdir", "both name and names"),
    (DOCKER, "/syscalls/0/comment", [], "must be a string"),
    (DOCKER, "/syscalls/1/includes/minKernel", "new", "must be a kernel version"),
    (DOCKER, "/syscalls/2/includes/caps", {}, "must be a list"),
    (DOCKER, "/syscalls/2/excludes", [], "must be an object"),
    (CONFIG, "/linux/seccomp", [], "must be an object"),
    (CONFIG, "/linux", [], "must be an object"),
    (CONFIG, "/linux/Seccomp", {}, "must be spelled seccomp"),
    (CONFIG, "/linux/seccomp/syscalls/0/action", "?", "unknown action ?"),
]


@pytest.mark.parametrize(("tree", "pointer", "value", "words"), WRONG)
def test_wrong_values(tree: dict[str, Any], pointer: str, value: object, words: str) -> None:
    """A wrong type or an unknown word is told by its JSON pointer, at its line and column."""
    text = json.dumps(changed(tree, pointer, value), indent=2)
    line = error_of(text.encode())
    where, _, message = line.partition(": ")
    assert words in message
    _, number, column = where.split(":")
    rest = text.split("\n")[int(number) - 1][int(column) - 1 :]
    if "lacks" not in words and "both archMap" not in words:
        assert rest.startswith(json.dumps(value)[:1])
        assert message.startswith(f"{pointer} ")


def test_missing_default() -> None:
    """Rules without a default action are refused, at the profile that lacks it."""
    tree = changed(CONFIG, "/linux/seccomp", {"syscalls": OCI["syscalls"]})
    text = json.dumps(tree)
    column = text.index('{"syscalls"') + 1
    assert error_of(text.encode()) == f"p.json:1:{column}: /defaultAction is missing"


@pytest.mark.parametrize("key", ["defaultErrnoRet", "architectures", "syscalls", "flags"])
def test_null_is_absent(key: str) -> None:
    """An absent key may be written as null, as in Go."""
    assert read(json.dumps(changed(OCI, f"/{key}", None)).encode(), "p.json")


@given(st.binary(max_size=200) | texts.map(str.encode))
def test_any_bytes(data: bytes) -> None:
    """Whatever the bytes, there is a document or one line of error."""
    survives(data)


@given(texts, st.data())
def test_any_damage(text: str, data: st.DataObject) -> None:
    """A profile with bytes overwritten gives a document or one line of error."""
    raw = bytearray(text.encode())
    at = data.draw(st.integers(0, len(raw)))
    raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    survives(bytes(raw))


def survives(data: bytes) -> None:
    """Read ``data``: it comes back as it was, or is refused with one line."""
    try:
        text = read(data, "p.json").text
    except ShimError as error:
        line = str(error)
        assert line.startswith("p.json:")
        assert line.isprintable()
    else:
        assert text.encode() == data
