"""Edits made in a profile's text, so that all that is not new stays byte for byte.

What is new is laid out like its neighbours: their line ends, indentation and spacing.
"""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from shim.errors import ShimError
from shim.profile.document import Document, read
from shim.profile.edit import Edit, amended
from shim.profile.scan import Item, Place, locate


def apply(document: Document, edits: Sequence[Edit]) -> Document:
    """Make ``edits`` and read the result back; ShimError: it is not what the edits said."""
    text = _without(document.text, [edit.pointer for edit in edits if edit.op == "remove"])
    for edit in edits:
        if edit.op == "add":
            text = _with(text, edit.pointer, edit.value)
    patched = read(text.encode(), document.where)
    if patched.tree != amended(document.tree, edits):
        # What is written was proven first; the layouts that people invent have no end.
        raise ShimError("its layout could not be kept", subject=document.where)
    return patched


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


def _without(text: str, pointers: list[str]) -> str:
    """Take elements out of their arrays, each with its comma."""
    gone: dict[str, set[int]] = {}
    for pointer in pointers:
        array, _, index = pointer.rpartition("/")
        gone.setdefault(array, set()).add(int(index))
    cuts = []
    for array, place in locate(text, gone).items():
        cuts += _cuts(place, gone[array])
    kept, end = [], 0
    for cut in sorted(cuts):
        kept.append(text[end : cut[0]])
        end = cut[1]
    return "".join([*kept, text[end:]])


def _cuts(array: Place, gone: set[int]) -> list[tuple[int, int]]:
    """Give the stretches of text to take out: an element and what parts it from its neighbour."""
    items = array.items
    first = next((index for index in range(len(items)) if index not in gone), None)
    if first is None:
        return [(array.start + 1, array.end - 1)]
    leading = [(items[0].start, items[first].start)]
    return leading + [(items[i - 1].end, items[i].end) for i in gone if i > first]


def _with(text: str, pointer: str, value: object) -> str:
    """Put a rule first in the array of rules, or the array of rules first in the profile."""
    profile = pointer.partition("/syscalls")[0]
    array = f"{profile}/syscalls"
    keys = (array, f"{array}/0", f"{array}/0/names")
    places = locate(text, [profile, *keys])
    around = places[profile]
    rules, rule, names = (places.get(key) for key in keys)
    style = _style(text, around, rule, names)
    if rules and rules.items:
        return _insert(text, rules, _lay_out(value, style))
    first = _array(value[0] if isinstance(value, list) else value, style)
    if rules:
        return text[: rules.start] + first + text[rules.end :]
    return _insert(text, around, f'"syscalls"{style.colon}{first}')


def _insert(text: str, place: Place, item: str) -> str:
    """Put ``item`` first in an array or object that has items, parted as they are."""
    first = place.items[0]
    before = text[place.start + 1 : first.start]
    between = f",{before}"
    if len(place.items) > 1:
        between = text[first.end : place.items[1].start]
    return text[: first.start] + item + between + text[first.start :]


def _array(rule: object, style: Style) -> str:
    """Lay out an array of the one rule, as a member of the profile."""
    closing = style.newline + style.outer.removesuffix(style.unit) if style.newline else ""
    lead = style.newline + style.outer if style.newline else ""
    return f"[{lead}{_lay_out(rule, style)}{closing}]"


def _lay_out(value: object, style: Style, depth: int = 0) -> str:
    """Write a rule, or what is in one ``depth`` levels down."""
    if isinstance(value, dict):
        pairs = [
            json.dumps(key) + style.colon + _lay_out(each, style, depth + 1)
            for key, each in value.items()
        ]
        return _bracket(
            "{", pairs, "}", style, depth, bool(style.newline) and (not depth or style.lists)
        )
    if isinstance(value, list):
        elements = [_lay_out(each, style, depth + 1) for each in value]
        return _bracket("[", elements, "]", style, depth, style.lists)
    return json.dumps(value)


def _bracket(start: str, items: list[str], end: str, style: Style, depth: int, lines: bool) -> str:
    if not lines:
        pad = style.pad if start == "{" else ""
        return start + pad + style.comma.join(items) + pad + end
    closing = style.newline + style.outer + style.unit * depth
    return start + closing + style.unit + f",{closing}{style.unit}".join(items) + closing + end


def _style(text: str, profile: Place, rule: Place | None, names: Place | None) -> Style:
    """Read the layout off the first rule; without rules, off the profile around them."""
    if not rule or not rule.items:
        style = _style_of(text, profile)
        return style._replace(outer=style.outer + style.unit * 2)
    style = _style_of(text, rule)
    if not names or not names.items:
        return style
    return style._replace(lists="\n" in text[names.start : names.items[0].start])


def _style_of(text: str, place: Place) -> Style:
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
    """Give the colon of a member with the spaces around it."""
    found = re.search(r"[ \t]*:[ \t]*$", text[item.start : item.value])
    return found[0] if found else ": "


def _indentation(text: str, offset: int) -> str:
    """Give the white space that the line at ``offset`` begins with."""
    line = text[text.rfind("\n", 0, offset) + 1 : offset]
    return line[: len(line) - len(line.lstrip())]
