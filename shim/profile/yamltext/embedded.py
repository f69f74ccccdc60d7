"""A YAML scalar that holds a text of its own, changed inside without being written anew.

Every character of the text is traced to where it stands in the file; only the stretch between the
first and the last character that differ is replaced, in the scalar's own way of writing.
"""

import re
from collections.abc import Iterator
from itertools import takewhile

from shim.errors import ShimError
from shim.profile.yamltext.edit import Splice
from shim.profile.yamltext.nodes import Node

_HEX = r"x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}"
_FOLD = r"[ \t]*(?:\r?\n[ \t]*)+"
_DOUBLE = re.compile(
    rf"(?P<code>\\(?:{_HEX}))|(?P<join>\\\r?\n[ \t]*)|\\(?P<sign>.)|(?P<fold>{_FOLD})|."
)
_SINGLE = re.compile(rf"''|(?P<fold>{_FOLD})|.")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def changed(text: str, node: Node, after: str) -> Splice:
    """Make the scalar ``node`` say ``after``. ShimError: the way it is written cannot."""
    before = str(node.value)
    start = _common(before, after)
    limit = min(len(before), len(after)) - start
    rest = _common(before[::-1][:limit], after[::-1][:limit])
    new = after[start : len(after) - rest]
    indent = ""
    if node.style == "|":
        indent = _indentation(text, node, before)
        places = list(_in_literal(text, node, before, indent))
        newline = "\r\n" if "\r\n" in text else "\n"
        written = new.replace("\n", newline + indent)
    elif node.style == '"':
        places = list(_in_quotes(text, node, _DOUBLE))
        written = "".join(_escaped(char) for char in new)
    elif node.style == "'" and "\n" not in new:
        places = list(_in_quotes(text, node, _SINGLE))
        written = new.replace("'", "''")
    else:
        raise ShimError("is written in a way that cannot be edited", hint="use a block scalar: |")
    if len(places) != len(before) + 1:
        raise ShimError("its layout could not be kept")
    return Splice(places[start], places[len(before) - rest], written)


def _common(one: str, other: str) -> int:
    """Return the length of the beginning that two texts share."""
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in shared)


def _indentation(text: str, node: Node, value: str) -> str:
    """Return what stands before each line of a literal block."""
    own = next((line for line in value.split("\n") if line.strip()), "")
    for line in text[text.index("\n", node.start) + 1 : node.end].split("\n"):
        if line.strip():
            width = len(line) - len(line.lstrip(" ")) - (len(own) - len(own.lstrip(" ")))
            return " " * width
    return ""


def _in_literal(text: str, node: Node, value: str, indent: str) -> Iterator[int]:
    """Return the offset of every character of a literal block, and of its end."""
    at = text.index("\n", node.start) + 1
    fresh = True
    for char in value:
        if fresh and text.startswith(indent, at):
            at += len(indent)
        elif fresh:  # a blank line may be shorter
            at += len(text[at : at + len(indent)]) - len(text[at : at + len(indent)].lstrip(" "))
        yield at
        fresh = char == "\n"
        at += 2 if fresh and text.startswith("\r\n", at) else 1
    if fresh and text.startswith(indent, at):
        at += len(indent)
    yield at


def _in_quotes(text: str, node: Node, tokens: re.Pattern[str]) -> Iterator[int]:
    """Return the offset of every character of a quoted scalar, and of its end."""
    end = node.end - 1
    at = text.index(node.style, node.start) + 1
    while at < end:
        found = tokens.match(text, at, end)
        if not found:
            return
        for _ in range(_length(found)):
            yield at
        at = found.end()
    yield end


def _length(found: re.Match[str]) -> int:
    """Tell of how many characters this is the writing (YAML 1.2.2, 6.5: line folding)."""
    groups = found.groupdict()
    if groups.get("join"):
        return 0
    fold = groups.get("fold")
    return max(1, fold.count("\n") - 1) if fold else 1


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return char if char.isprintable() else f"\\U{ord(char):08x}"
