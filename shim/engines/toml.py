"""TOML as text: a table put in or taken out, one value changed; every other byte stays as it is.

Libraries that keep the style take the comments before the next table for the end of the one that
they remove. Here a table ends with its last key.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shim.errors import ShimError

# The four kinds of strings, a comment, a line end, anything up to one of these or to a bracket.
_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")'
    r"|'''.*?'{3,5}(?!')"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|\n"
    r"""|[^"'#\n\[\]{}]+"""
    r"|.",
    re.DOTALL,
)
_EMPTY_LINE = re.compile(r"(?:\A|(?<=\n))\r?\n\Z")


class Statement(NamedTuple):
    """One header, one key with its value, or a line without either (``path`` is empty).

    ``path`` leads from the top of the document to the table or value. ``start`` and ``end`` are
    those of its lines, ``value`` those of the value, in characters.
    """

    header: bool
    path: tuple[str, ...]
    start: int
    end: int
    value: tuple[int, int]


def parse(data: bytes, where: str) -> dict[str, Any]:
    """Return the document in ``data``; ShimError: it is no TOML, and what is wrong first."""
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # also what is no UTF-8
        first = " ".join(str(error).split())
        raise ShimError(f"is not valid TOML: {first}", subject=where) from None


def look_up(document: Mapping[str, Any], path: Sequence[str]) -> Any:
    """Return what stands at ``path``; None if nothing does, or no table is on the way."""
    value: Any = document
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value


def a_table(document: Mapping[str, Any], path: Sequence[str], where: Path) -> dict[str, Any]:
    """Return the table at ``path``, an empty one if nothing is there; ShimError: something else."""
    found = look_up(document, path)
    if not isinstance(found, dict | None):
        raise ShimError(f"{'.'.join(path)} must be a table", subject=str(where))
    return {} if found is None else found


def a_list(document: Mapping[str, Any], key: str, where: Path) -> list[Any]:
    """Return the list ``key``, an empty one if nothing is there; ShimError: something else."""
    found = document.get(key)
    if not isinstance(found, list | None):
        raise ShimError(f"{key} must be a list", subject=str(where))
    return [] if found is None else found


def literal(value: Any) -> str:
    """Return text, truth, a number, or a list of such as TOML on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    # JSON's strings are TOML's, but for DEL, which JSON lets stand as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def table(path: Sequence[str], content: Mapping[str, Any]) -> str:
    """Return a table and those in it, each under a header of its own."""
    inner = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    lines = [_header(path)]
    lines += [f"{_name(k)} = {literal(v)}\n" for k, v in content.items() if k not in inner]
    return "".join([*lines, *(table([*path, key], value) for key, value in inner.items())])


def append(text: str, addition: str) -> str:
    """Put ``addition`` at the end, behind an empty line, with the line ends that ``text`` has."""
    end = _line_end(text)
    gap = "" if not text else end if text.endswith("\n") else end * 2
    return text + gap + addition.replace("\n", end)


def without_table(text: str, path: Sequence[str]) -> str:
    """Take out the table at ``path`` and those in it, with an empty line before each header.

    Comments on lines of their own stay, also those between its keys.
    """
    kept, cut = [], 0
    for each in statements(text):
        if each.path[: len(path)] == tuple(path):
            before = text[cut : each.start]
            kept.append(_EMPTY_LINE.sub("", before) if each.header else before)
            cut = each.end
    return "".join([*kept, text[cut:]])


def with_value(text: str, path: Sequence[str], value: Any) -> str:
    """Return the key at ``path`` another value, in its own line or a new one of its table."""
    *directory, key = path
    header = None
    for each in statements(text):
        if not each.header and each.path == tuple(path):
            return text[: each.value[0]] + literal(value) + text[each.value[1] :]
        if each.header and each.path == tuple(directory):
            header = each
    line = f"{_name(key)} = {literal(value)}"
    if header is None:
        return append(text, f"{_header(directory)}{line}\n")
    old, end = text[header.start : header.end], _line_end(text)
    indent = old[: len(old) - len(old.lstrip())]
    gap = "" if old.endswith("\n") else end
    return f"{text[: header.end]}{gap}{indent}{line}{end}{text[header.end :]}"


def without_key(text: str, path: Sequence[str]) -> str:
    """Take out the line of the key at ``path``."""
    for each in statements(text):
        if not each.header and each.path == tuple(path):
            return text[: each.start] + text[each.end :]
    return text


def statements(text: str) -> Iterator[Statement]:
    """Cut valid TOML into its statements, which together are the whole text."""
    directory: tuple[str, ...] = ()
    start = depth = first = equals = last = 0
    first = equals = -1
    for token in _TOKEN.finditer(text):
        mark = token.group()
        depth += (mark in "[{") - (mark in "]}")
        if not mark.isspace() and mark[0] != "#":
            first = token.start() if first < 0 else first
            last = token.start() + len(mark.rstrip())
            if equals < 0 and mark[0] not in "\"'" and "=" in mark:
                equals = token.start() + mark.index("=")
        if (mark != "\n" or depth) and token.end() < len(text):
            continue
        header = first >= 0 and text[first:].lstrip()[0] == "["
        path: tuple[str, ...] = ()
        if header:
            directory = path = _path(tomllib.loads(text[start : token.end()]))
        elif first >= 0:
            path = directory + _path(tomllib.loads(f"{text[start:equals]}= 0"))
        value = equals + 1
        while text[value : value + 1] in {" ", "\t"}:
            value += 1
        yield Statement(header, path, start, token.end(), (value, last))
        start, first, equals = token.end(), -1, -1


def _path(tree: Any) -> tuple[str, ...]:
    """Return the names that lead down a document of one header or key."""
    names = []
    while isinstance(tree, dict) and tree:
        ((name, tree),) = tree.items()
        tree = tree[0] if isinstance(tree, list) else tree
        names.append(name)
    return tuple(names)


def _header(path: Sequence[str]) -> str:
    return f"[{'.'.join(map(_name, path))}]\n"


def _name(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else literal(key)


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
