"""Change one place of a JSON text and leave every other character as it was. Pure.

Whoever wrote a config.json may have put numbers into it that no double holds, or keys that we have
never heard of; what is not read cannot be lost. ``shim.start.spec`` alone edits by this, and reads
again what comes out. ShimError, ValueError, IndexError, RecursionError: it cannot be done.
"""

from shim.errors import ShimError
from shim.startjson import value_at

_SPACE = " \t\r\n"
_NAME = "config.json"


def add(text: str, keys: "tuple[str, ...]", item: str, *, last: bool = False) -> str:
    """Add ``item`` to the array or object that ``keys`` lead to; what is missing is made.

    An element of an array is given as it is to stand there, a member of an object with its key.
    """
    depth, start, end = _walk(text, keys)
    if depth < len(keys):
        is_member = value_at(item, 0)[1] != len(item)
        return put(text, keys, f"{{{item}}}" if is_member else f"[{item}]")
    empty = not text[start + 1 : end - 1].strip(_SPACE)
    if empty or not last:
        return text[: start + 1] + item + ("" if empty else ",") + text[start + 1 :]
    return text[: end - 1] + "," + item + text[end - 1 :]


def put(text: str, keys: "tuple[str, ...]", value: str) -> str:
    """Set what ``keys`` lead to to ``value``; what is missing is made."""
    depth, start, end = _walk(text, keys)
    for key in reversed(keys[depth + 1 :]):
        value = f'{{"{key}":{value}}}'
    if depth == len(keys):
        return text[:start] + value + text[end:]
    place = _member(text, start, keys[depth])
    if place:  # it is null
        return text[: place[0]] + value + text[place[1] :]
    return add(text, keys[:depth], f'"{keys[depth]}":{value}')


def remove(text: str, keys: "tuple[str, ...]") -> str:
    """Remove the member that ``keys`` lead to, as ``add`` enters one."""
    _, start, _ = _walk(text, keys[:-1])
    at = _skip(text, start + 1)
    comma = 0
    while True:
        begin = at
        key, at = value_at(text, at)
        end = value_at(text, _skip(text, _skip(text, at) + 1))[1]
        at = _skip(text, end)
        if key == keys[-1]:
            break
        comma, at = at, _skip(text, at + 1)
    if text[at] == ",":
        return text[:begin] + text[at + 1 :]
    return text[: comma or begin] + text[end:]


def _walk(text: str, keys: "tuple[str, ...]") -> "tuple[int, int, int]":
    """Follow ``keys`` as far as there are values but null: how many, and the last one's span."""
    start, end = _skip(text, 0), len(text.rstrip(_SPACE))  # the text is one value
    for depth, key in enumerate(keys):
        place = _member(text, start, key)
        if place is None or text[place[0] : place[1]] == "null":
            return depth, start, end
        start, end = place
    return len(keys), start, end


def _member(text: str, at: int, wanted: str) -> "tuple[int, int] | None":
    """Return the span of the value under ``wanted`` in the object that begins at ``at``."""
    if text[at] != "{":
        raise ShimError(f"what should hold {wanted} is no object", subject=_NAME)
    found = None
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, at = value_at(text, at)
        start = _skip(text, _skip(text, at) + 1)
        at = value_at(text, start)[1]
        # Go takes keys of any case, and of two the last: one of them would not be the one we read.
        if key.casefold() == wanted.casefold():
            if found or key != wanted:
                raise ShimError(f"has {wanted} twice or oddly spelled", subject=_NAME)
            found = start, at
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _SPACE:
        at += 1
    return at
