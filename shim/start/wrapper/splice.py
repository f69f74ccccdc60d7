"""Change one place of a JSON text and leave every other character as it was. Pure.

Whoever wrote a config.json may have put numbers into it that no double holds, or keys that we have
never heard of; what is not read cannot be lost. What comes out is read again: it says what was
meant, and nothing else, or the change is not made.
"""

from shim.errors import ShimError
from shim.start.spec import parse_config
from shim.startjson import loads, value_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SPACE = " \t\r\n"
_NAME = "config.json"


def add(text: str, keys: "tuple[str, ...]", item: str, *, last: bool = False) -> str:
    """Add ``item`` to the array or object that ``keys`` lead to; what is missing is made.

    An element of an array is given as it is to stand there, a member of an object with its key.
    ShimError: the text is not made of objects along ``keys``, what they lead to is of another type,
    or the text can be read in more than one way.
    """
    value, end = value_at(item, 0)
    member = loads(f"{{{item}}}") if end != len(item) else None

    def added(there: object) -> object:
        if member is not None and isinstance(there, dict | None):
            return {**(there or {}), **member}
        if member is None and isinstance(there, list | None):
            return [*(there or ()), value] if last else [value, *(there or ())]
        raise ShimError(f"is no {'array' if member is None else 'object'}", subject=_pointer(keys))

    return _changed(text, keys, added, lambda: _add(text, keys, item, last=last))


def put(text: str, keys: "tuple[str, ...]", value: str) -> str:
    """Set what ``keys`` lead to to ``value``; what is missing is made. ShimError as of ``add``."""
    return _changed(text, keys, lambda _: loads(value), lambda: _put(text, keys, value))


def remove(text: str, keys: "tuple[str, ...]") -> str:
    """Remove the member that ``keys`` lead to, as ``add`` enters one. ShimError as of ``add``."""
    *above, key = keys

    def removed(there: object) -> object:
        if not isinstance(there, dict) or key not in there:
            raise ShimError("is not there", subject=_pointer(keys))
        return {name: value for name, value in there.items() if name != key}

    return _changed(text, tuple(above), removed, lambda: _remove(text, keys))


def _changed(
    text: str,
    keys: "tuple[str, ...]",
    change: "Callable[[object], object]",
    edit: "Callable[[], str]",
) -> str:
    """Make ``edit`` and see that it does to the document what ``change`` does to the one place."""
    try:
        meant = _with(parse_config(text, _NAME), keys, change, ())
        new = edit()
        if parse_config(new, _NAME) == meant:
            return new
    except (ValueError, IndexError, RecursionError) as error:
        raise ShimError(f"cannot be changed: {error!r}", subject=_NAME) from None
    raise ShimError(f"would not say what is meant at {_pointer(keys)}", subject=_NAME)


def _with(
    there: object,
    keys: "tuple[str, ...]",
    change: "Callable[[object], object]",
    above: "tuple[str, ...]",
) -> "Any":
    """Return ``there`` with the place that ``keys`` lead to changed, itself left as it is."""
    if not keys:
        return change(there)
    if not isinstance(there, dict | None):
        raise ShimError("is no object", subject=_pointer(above))
    members = there or {}
    new = _with(members.get(keys[0]), keys[1:], change, (*above, keys[0]))
    return {**members, keys[0]: new}


def _pointer(keys: "tuple[str, ...]") -> str:
    return "/".join(("", *keys))


def _add(text: str, keys: "tuple[str, ...]", item: str, *, last: bool = False) -> str:
    depth, start, end = _walk(text, keys)
    if depth < len(keys):
        is_member = value_at(item, 0)[1] != len(item)
        return _put(text, keys, f"{{{item}}}" if is_member else f"[{item}]")
    empty = not text[start + 1 : end - 1].strip(_SPACE)
    if empty or not last:
        return text[: start + 1] + item + ("" if empty else ",") + text[start + 1 :]
    return text[: end - 1] + "," + item + text[end - 1 :]


def _put(text: str, keys: "tuple[str, ...]", value: str) -> str:
    depth, start, end = _walk(text, keys)
    for key in reversed(keys[depth + 1 :]):
        value = f'{{"{key}":{value}}}'
    if depth == len(keys):
        return text[:start] + value + text[end:]
    place = _member(text, start, keys[depth])
    if place:  # it is null
        return text[: place[0]] + value + text[place[1] :]
    return _add(text, keys[:depth], f'"{keys[depth]}":{value}')


def _remove(text: str, keys: "tuple[str, ...]") -> str:
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
