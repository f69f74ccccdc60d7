"""Strict JSON (RFC 8259) whose values can be found again in their text.

One scanner reads the tree and finds the places, so that the two never disagree. Stricter than the
json package: no duplicate keys, no NaN, no numbers beyond range, no deep nesting.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from json import JSONDecodeError, JSONDecoder, decoder
from typing import NamedTuple, NoReturn

from shim.profile.spelling import meant

# A whole config.json is about ten levels deep.
MAX_DEPTH = 64

_DECODER = JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_scan_string: Callable[[str, int, bool], tuple[str, int]] = vars(decoder)["scanstring"]
_WORDS: dict[str, object] = {"true": True, "false": False, "null": None}
_WORD = re.compile(r"[A-Za-z]+")


class NotJSON(Exception):  # noqa: N818 - it says what the text is, as StopIteration says what happens
    """What is wrong, and at which character offset of the text."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class Item(NamedTuple):
    """A member of an object or an element of an array: offsets of its start, value and end."""

    start: int
    value: int
    end: int


class Span(NamedTuple):
    """Offsets of a value in its text, and of what it contains."""

    start: int
    end: int
    items: tuple[Item, ...]


def parse(text: str) -> object:
    """Return the tree of a JSON text. NotJSON: it is none."""
    try:
        tree = _QUICK.decode(text.strip(" \t\r\n"))
    except (ValueError, RecursionError):
        pass  # the scanner finds the words for it, and the place
    else:
        if not _deep(tree):
            return tree
    return _Scanner(text, None).document()


def locate(text: str, pointers: Iterable[str]) -> dict[str, Span]:
    """Find the values that the JSON pointers (RFC 6901, no escapes) name, those that are there.

    ``text`` must have been parsed before: what no pointer leads into is passed over unread.
    """
    scanner = _Scanner(text, frozenset(pointers))
    scanner.document()
    return scanner.places


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key appears twice")
    return members


def _never(word: str) -> object:
    raise ValueError(f"{word} is no JSON")


def _finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise ValueError("out of range")
    return value


def _deep(tree: object) -> bool:
    """Tell whether a tree has more than MAX_DEPTH levels."""
    level = [tree]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


# The json package's own scanner, a good ten times as fast, made as strict as ours.
_QUICK = JSONDecoder(object_pairs_hook=_once, parse_constant=_never, parse_float=_finite)


class _Scanner:
    """Recursive descent over a text; ``wanted`` are the pointers to note, None reads all of it."""

    def __init__(self, text: str, pointers: frozenset[str] | None) -> None:
        self.text = text
        self.pointers = pointers
        self.ways = {way for each in pointers or () for way in _prefixes(each)}
        self.places: dict[str, Span] = {}

    def document(self) -> object:
        value, end = self._value(self._space(0), "", 0)
        end = self._space(end)
        if end != len(self.text):
            self._fail("something follows the JSON document", end)
        return value

    def _value(self, at: int, pointer: str, depth: int) -> tuple[object, int]:
        if self.pointers is not None and pointer not in self.ways:
            return _DECODER.raw_decode(self.text, at)
        items: list[Item] = []
        value: object
        first = self.text[at : at + 1]
        if first == '"':
            value, end = self._string(at)
        elif first in ("{", "["):
            if depth == MAX_DEPTH:
                self._fail(f"nested more than {MAX_DEPTH} levels deep", at)
            read = self._object if first == "{" else self._array
            value, end = read(at, pointer, depth + 1, items)
        else:
            value, end = self._scalar(at)
        if self.pointers and pointer in self.pointers:
            self.places[pointer] = Span(at, end, tuple(items))
        return value, end

    def _object(
        self, at: int, pointer: str, depth: int, items: list[Item]
    ) -> tuple[dict[str, object], int]:
        members: dict[str, object] = {}
        at = self._space(at + 1)
        while self.text[at : at + 1] != "}":
            start = at
            if self.text[at : at + 1] != '"':
                self._fail("expected a key in double quotes" + (" or }" if not items else ""), at)
            key, at = self._string(at)
            if key in members:
                self._fail(f"the key {key!a} appears twice in the same object", start)
            at = self._space(at)
            if self.text[at : at + 1] != ":":
                self._fail("expected a colon after the key", at)
            at = self._space(at + 1)
            members[key], end = self._value(at, f"{pointer}/{meant(key)}", depth)
            items.append(Item(start, at, end))
            at = self._next(end, "}")
        return members, at + 1

    def _array(
        self, at: int, pointer: str, depth: int, items: list[Item]
    ) -> tuple[list[object], int]:
        elements: list[object] = []
        at = self._space(at + 1)
        while self.text[at : at + 1] != "]":
            element, end = self._value(at, f"{pointer}/{len(elements)}", depth)
            elements.append(element)
            items.append(Item(at, at, end))
            at = self._next(end, "]")
        return elements, at + 1

    def _next(self, at: int, close: str) -> int:
        """Step over a comma to the next item, or to the closing bracket."""
        at = self._space(at)
        sign = self.text[at : at + 1]
        if sign == close:
            return at
        if sign != ",":
            self._fail(f"expected a comma or {close}", at)
        comma, at = at, self._space(at + 1)
        if self.text[at : at + 1] == close:
            self._fail(f"a comma stands before {close}", comma)
        return at

    def _string(self, at: int) -> tuple[str, int]:
        try:
            return _scan_string(self.text, at + 1, True)
        except JSONDecodeError as error:
            if error.msg.startswith("Unterminated"):
                self._fail("the text ends inside the string that begins here", at)
            what = error.msg.removesuffix(" at").rstrip(": ")
            self._fail(f"{what[0].lower()}{what[1:]} in a string", error.pos)

    def _scalar(self, at: int) -> tuple[object, int]:
        word = _WORD.match(self.text, at)
        if word and word[0] in _WORDS:
            return _WORDS[word[0]], word.end()
        number = _NUMBER.match(self.text, at)
        if not number:
            self._fail("expected a JSON value", at)
        whole = not (number[1] or number[2])
        try:
            value = int(number[0]) if whole else float(number[0])
        except ValueError:  # Python refuses thousands of digits
            value = float("inf")
        if value in (float("inf"), float("-inf")):
            self._fail("the number is out of range", at)
        return value, number.end()

    def _space(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        return found.end() if found else at

    def _fail(self, message: str, at: int) -> NoReturn:
        if at >= len(self.text):
            raise NotJSON(f"the text ends too early: {message}", len(self.text))
        raise NotJSON(message, at)


def _prefixes(pointer: str) -> Iterator[str]:
    """Return the pointers to all that contains the value, and its own."""
    while pointer:
        yield pointer
        pointer = pointer.rpartition("/")[0]
    yield ""
