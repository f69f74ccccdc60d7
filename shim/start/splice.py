"""Change one place of a JSON text and leave every other character as it was. Pure.

Whoever wrote a config.json may have put numbers into it that no double holds, or keys that we have
never heard of; what is not read cannot be lost.
"""

from shim.errors import ShimError
from shim.startjson import value_at

_SPACE = " \t\r\n"


def add(text: str, keys: "tuple[str, ...]", item: str, *, last: bool = False) -> str:
    """Add ``item`` to the array or object that ``keys`` lead to; what is missing is made.

    An element of an array is given as it is to stand there, a member of an object with its key.
    ShimError: the text is not made of objects along ``keys``, or has one of them twice.
    """
    depth, start, end = _walk(text, keys)
    if depth < len(keys):
        is_member = value_at(item, 0)[1] != len(item)
        return put(text, keys, f"{{{item}}}" if is_member else f"[{item}]")
    empty = not text[start + 1 : end - 1].strip(_SPACE)
    if text[start] not in "{[":
        raise ShimError("is neither array nor object", subject="/".join(("", *keys)))
    if empty or not last:
        return text[: start + 1] + item + ("" if empty else ",") + text[start + 1 :]
    return text[: end - 1] + "," + item + text[end - 1 :]


def put(text: str, keys: "tuple[str, ...]", value: str) -> str:
    """Set what ``keys`` lead to to ``value``; what is missing is made. ShimError as of ``add``."""
    depth, start, end = _walk(text, keys)
    for key in reversed(keys[depth + 1 :]):
        value = f'{{"{key}":{value}}}'
    if depth == len(keys):
        return text[:start] + value + text[end:]
    place = _member(text, start, keys[depth])
    if place:  # it is null
        return text[: place[0]] + value + text[place[1] :]
    return add(text, keys[:depth], f'"{keys[depth]}":{value}')


def _walk(text: str, keys: "tuple[str, ...]") -> "tuple[int, int, int]":
    """Follow ``keys`` as far as there are values but null: how many, and the last one's span."""
    start = _skip(text, 0)
    end = value_at(text, start)[1]
    for depth, key in enumerate(keys):
        place = _member(text, start, key)
        if place is None or text[place[0] : place[1]] == "null":
            return depth, start, end
        start, end = place
    return len(keys), start, end


def _member(text: str, at: int, wanted: str) -> "tuple[int, int] | None":
    """Give the span of the value under ``wanted`` in the object that begins at ``at``."""
    if text[at] != "{":
        raise ShimError(f"what should hold {wanted} is no object", subject="config.json")
    found = None
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, at = value_at(text, at)
        start = _skip(text, _skip(text, at) + 1)
        at = value_at(text, start)[1]
        # Go takes keys of any case, and of two the last: one of them would not be the one we read.
        if key.lower() == wanted.lower():
            if found or key != wanted:
                raise ShimError(f"has {wanted} twice or oddly spelled", subject="config.json")
            found = start, at
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _SPACE:
        at += 1
    return at
