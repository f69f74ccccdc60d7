"""Members of a JSON object put in, replaced and taken out in its text; all else stays as it is.

The text must be one that ``shim.profile.jsontext.scanner.parse`` takes.
"""

import json
from collections.abc import Sequence

from shim.profile.jsontext.layout import Style, cuts, insert, lay_out, style_of
from shim.profile.jsontext.scanner import Item, Span, locate

_DECODER = json.JSONDecoder()


def put(text: str, keys: Sequence[str], value: object) -> str:
    """Make the member that ``keys`` lead to ``value``; the object that it is in must be there.

    A new member becomes the first: behind the last one it would put a comma on a line that is not
    its own.
    """
    *way, key = keys
    place = _place(text, way)
    style = _style(text, way)
    shown = lay_out(value, style._replace(outer=style.outer + style.unit))
    index = _index(text, place, key)
    if index is not None:
        item = place.items[index]
        return text[: item.value] + shown + text[item.end :]
    member = json.dumps(key) + style.colon + shown
    if place.items:
        return insert(text, place, member)
    lead = style.newline + style.outer + style.unit if style.newline else style.pad
    trail = style.newline + style.outer if style.newline else style.pad
    return f"{text[: place.start]}{{{lead}{member}{trail}}}{text[place.end :]}"


def drop(text: str, keys: Sequence[str]) -> str:
    """Take out the member that ``keys`` lead to, if it is there, with its comma."""
    *way, key = keys
    place = _place(text, way)
    index = _index(text, place, key)
    if index is None:
        return text
    parts, end = [], 0
    for cut in sorted(cuts(text, place, {index})):
        parts.append(text[end : cut[0]])
        end = cut[1]
    return "".join([*parts, text[end:]])


def _style(text: str, way: Sequence[str]) -> Style:
    """Read the layout off the object itself, or off what contains it where it is empty."""
    place = _place(text, way)
    if place.items:
        return style_of(text, place)
    if not way:
        return Style("\r\n" if "\r\n" in text else "\n", "", "  ", ": ", ", ", "", True)
    style = _style(text, way[:-1])
    return style._replace(outer=style.outer + style.unit)


def _place(text: str, way: Sequence[str]) -> Span:
    """Find the value that the keys lead to. KeyError: there is none."""
    at, end = 0, len(text)
    for key in way:
        around = _here(text, at, end)
        index = _index(text, around, key)
        if index is None:
            raise KeyError(key)
        at, end = around.items[index].value, around.items[index].end
    return _here(text, at, end)


def _here(text: str, at: int, end: int) -> Span:
    place = locate(text[at:end], [""])[""]
    items = (Item(*(each + at for each in item)) for item in place.items)
    return Span(place.start + at, place.end + at, tuple(items))


def _index(text: str, place: Span, key: str) -> int | None:
    keys = (_DECODER.raw_decode(text, item.start)[0] for item in place.items)
    return next((index for index, each in enumerate(keys) if each == key), None)
