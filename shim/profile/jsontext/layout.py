"""How JSON text is laid out, and how what is new is laid out like its neighbours.

Line ends, indentation and spacing are read off an object that has members.
"""

import json
import re
from typing import NamedTuple

from shim.profile.jsontext.scanner import Item, Span


class Style(NamedTuple):
    """How a rule is laid out.

    ``newline`` is empty where a rule stands on one line; ``outer`` is the indentation of the rule's
    closing brace, ``unit`` one more step; ``lists`` tells whether each name has its own line.
    """

    newline: str
    outer: str
    unit: str
    colon: str
    comma: str
    pad: str
    lists: bool


def insert(text: str, place: Span, item: str) -> str:
    """Put ``item`` first in an array or object that has items, parted as they are."""
    first = place.items[0]
    before = text[place.start + 1 : first.start]
    line = re.search(r"\r?\n[ \t]*$", before)
    between = f",{before}"
    if line:
        # The line that was the first stays as it is, however those after it are indented.
        between = f",{line[0]}"
    elif len(place.items) > 1:
        between = text[first.end : place.items[1].start]
    return text[: first.start] + item + between + text[first.start :]


def cuts(text: str, place: Span, gone: set[int]) -> list[tuple[int, int]]:
    """Return the stretches of text to take out: an element and what parts it from its neighbour."""
    items = place.items
    first = next((index for index in range(len(items)) if index not in gone), None)
    if first is None:
        return [(place.start + 1, place.end - 1)]
    lead, end = items[0].start, items[first].start
    if first and _leads(text, lead) and _leads(text, end):
        # Whole lines: the one that is first now keeps its indentation.
        lead, end = (text.rfind("\n", 0, at) + 1 for at in (lead, end))
    leading = [(lead, end)]
    return leading + [(items[i - 1].end, items[i].end) for i in gone if i > first]


def lay_out(value: object, style: Style, depth: int = 0) -> str:
    """Write a value, or what is in one ``depth`` levels down."""
    if isinstance(value, dict):
        pairs = [
            json.dumps(key) + style.colon + lay_out(each, style, depth + 1)
            for key, each in value.items()
        ]
        return _bracket(
            "{", pairs, "}", style, depth, bool(style.newline) and (not depth or style.lists)
        )
    if isinstance(value, list):
        elements = [lay_out(each, style, depth + 1) for each in value]
        return _bracket("[", elements, "]", style, depth, style.lists)
    return json.dumps(value)


def _bracket(start: str, items: list[str], end: str, style: Style, depth: int, lines: bool) -> str:
    if not lines:
        pad = style.pad if start == "{" else ""
        return start + pad + style.comma.join(items) + pad + end
    closing = style.newline + style.outer + style.unit * depth
    return start + closing + style.unit + f",{closing}{style.unit}".join(items) + closing + end


def style_of(text: str, place: Span) -> Style:
    """Read the layout of an object that has members."""
    first, last = place.items[0], place.items[-1]
    lead = text[place.start + 1 : first.start]
    trail = text[last.end : place.end - 1]
    colon = _colon(text, first)
    comma = "," if colon == ":" else ", "
    if "\n" not in lead:
        return Style("", "", "", colon, comma, lead if lead.isspace() else "", False)
    newline = "\r\n" if "\r\n" in lead else "\n"
    inner = lead.rpartition("\n")[2]
    outer = trail.rpartition("\n")[2] if "\n" in trail else _indentation(text, place.start)
    unit = inner.removeprefix(outer) if inner != outer else ""
    return Style(newline, outer, unit, colon, comma, "", True)


def _colon(text: str, item: Item) -> str:
    """Return the colon of a member with the spaces around it."""
    found = re.search(r"[ \t]*:[ \t]*$", text[item.start : item.value])
    return found[0] if found else ": "


def _leads(text: str, at: int) -> bool:
    """Tell whether only indentation is before ``at`` in its line, and another line before that."""
    start = text.rfind("\n", 0, at) + 1
    return start > 0 and not text[start:at].strip(" \t")


def _indentation(text: str, offset: int) -> str:
    """Return the white space that the line at ``offset`` begins with."""
    line = text[text.rfind("\n", 0, offset) + 1 : offset]
    return line[: len(line) - len(line.lstrip())]
