"""Edits made in a profile's text, so that all that is not new stays byte for byte.

What is new is laid out like its neighbours: their line ends, indentation and spacing.
"""

from collections.abc import Sequence

from shim.errors import ShimError
from shim.profile.document import Document, read
from shim.profile.edit import TreeEdit, amended
from shim.profile.jsontext.layout import Style, cuts, insert, lay_out, style_of
from shim.profile.jsontext.scanner import Span, locate


def apply(document: Document, edits: Sequence[TreeEdit]) -> Document:
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


def _without(text: str, pointers: list[str]) -> str:
    """Take elements out of their arrays, each with its comma."""
    gone: dict[str, set[int]] = {}
    for pointer in pointers:
        array, _, index = pointer.rpartition("/")
        gone.setdefault(array, set()).add(int(index))
    places: list[tuple[int, int]] = []
    for array, place in locate(text, gone).items():
        places += cuts(text, place, gone[array])
    parts, end = [], 0
    for cut in sorted(places):
        parts.append(text[end : cut[0]])
        end = cut[1]
    return "".join([*parts, text[end:]])


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
        return insert(text, rules, lay_out(value, style))
    first = _array(value[0] if isinstance(value, list) else value, style)
    if rules:
        return text[: rules.start] + first + text[rules.end :]
    return insert(text, around, f'"syscalls"{style.colon}{first}')


def _array(rule: object, style: Style) -> str:
    """Lay out an array of the one rule, as a member of the profile."""
    closing = style.newline + style.outer.removesuffix(style.unit) if style.newline else ""
    lead = style.newline + style.outer if style.newline else ""
    return f"[{lead}{lay_out(rule, style)}{closing}]"


def _style(text: str, profile: Span, rule: Span | None, names: Span | None) -> Style:
    """Read the layout off the first rule; without rules, off the profile around them."""
    if not rule or not rule.items:
        style = style_of(text, profile)
        return style._replace(outer=style.outer + style.unit * 2)
    style = style_of(text, rule)
    if not names or not names.items:
        return style
    return style._replace(lists="\n" in text[names.start : names.items[0].start])
