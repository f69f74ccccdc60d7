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
    text = document.text
    for edit in edits:
        if edit.op == "remove":
            text = _remove(text, edit.pointer)
        else:
            text = _add(text, edit.pointer, edit.value)
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


def _remove(text: str, pointer: str) -> str:
    """Take one element out of an array, with its comma."""
    array, _, last = pointer.rpartition("/")
    items = locate(text, array).items
    index = int(last)
    if index:
        return text[: items[index - 1].end] + text[items[index].end :]
    if len(items) > 1:
        return text[: items[0].start] + text[items[1].start :]
    place = locate(text, array)
    return text[: place.start + 1] + text[place.end - 1 :]


def _add(text: str, pointer: str, value: object) -> str:
    """Put a rule first in the array of rules, or the array of rules first in the profile."""
    profile = pointer.partition("/syscalls")[0]
    style = _style(text, profile)
    if pointer.endswith("/0"):
        place = locate(text, f"{profile}/syscalls")
        if not place.items:
            return text[: place.start] + _array(value, style) + text[place.end :]
        return _insert(text, place, _lay_out(value, style))
    array = _array(value[0] if isinstance(value, list) else value, style)
    try:
        place = locate(text, pointer)
    except KeyError:
        return _insert(text, locate(text, profile), f'"syscalls"{style.colon}{array}')
    return text[: place.start] + array + text[place.end :]


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


def _style(text: str, profile: str) -> Style:
    """Read the layout off the first rule; without rules, off the profile around them."""
    try:
        rule = locate(text, f"{profile}/syscalls/0")
    except KeyError:
        return _style_without_rules(text, locate(text, profile))
    if not rule.items:
        return _style_without_rules(text, locate(text, profile))
    style = _style_of(text, rule)
    try:
        names = locate(text, f"{profile}/syscalls/0/names")
    except KeyError:
        return style
    inner = text[names.start : names.items[0].start] if names.items else style.newline
    return style._replace(lists=bool(style.newline) and "\n" in inner)


def _style_without_rules(text: str, profile: Place) -> Style:
    style = _style_of(text, profile)
    return style._replace(outer=style.outer + style.unit * 2)


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
