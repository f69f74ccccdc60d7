"""JSON for the start path: the interpreter's own scanner and encoder without the json package.

``import json`` costs about as much as the whole interpreter (it compiles regular expressions at
import), and every container would pay it. CPython keeps the real work in the C module ``_json``;
another interpreter, or a future one that lays it out otherwise, gets the json package.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Context:
    """What the scanner asks of its decoder (CPython Modules/_json.c, scanner_new)."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: "dict[str, str]" = {}  # noqa: RUF012 - the scanner fills and clears it itself

    parse_constant = float


_CONTEXT: "Any" = _Context


def loads(text: "str | bytes") -> "Any":
    """Read one JSON document. ValueError: it is none, or nests too deeply."""
    if isinstance(text, bytes):
        text = text.decode()
    try:
        from _json import make_scanner

        value, end = make_scanner(_CONTEXT)(text, len(text) - len(text.lstrip(" \t\r\n")))
        if text[end:].strip(" \t\r\n"):
            raise ValueError("data after the document")
    except (ImportError, StopIteration, SystemError, ValueError, RecursionError):
        # Rare and slow from here: let the package find the words. SystemError is what the bare
        # scanner raises for malformed input while json.decoder, home of its exception, is missing.
        import json

        try:
            value = json.loads(text)
        except RecursionError:
            raise ValueError("JSON nested too deeply") from None
    return value


def value_at(text: str, at: int) -> "tuple[Any, int]":
    """Read the one value that begins at ``at``: it and where it ends. ValueError: there is none."""
    try:
        from _json import make_scanner
    except ImportError:
        from json.scanner import make_scanner
    try:
        value, end = make_scanner(_CONTEXT)(text, at)
    except (StopIteration, SystemError, RecursionError):
        raise ValueError(f"no JSON value at {at}") from None
    return value, int(end)


def dumps(value: "Any") -> str:
    """Write one JSON document on one line, everything but ASCII escaped."""
    try:
        from _json import encode_basestring_ascii, make_encoder
    except ImportError:
        import json

        return json.dumps(value)
    encoder = make_encoder(
        None, _unsupported, encode_basestring_ascii, None, ": ", ", ", False, False, False
    )
    return "".join(encoder(value, 0))


def _unsupported(value: object) -> "Any":
    raise TypeError(f"{type(value).__name__} is not JSON")
