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
    object_pairs_hook: "Any" = None
    parse_float = float
    parse_int = int
    memo: "dict[str, str]" = {}  # noqa: RUF012 - the scanner fills and clears it itself

    parse_constant: "Any" = float


class _OnceContext(_Context):
    """Asks to be shown the members of each object, and takes JSON alone."""

    @staticmethod
    def parse_constant(text: str) -> float:
        """Refuse NaN, Infinity and -Infinity, which Python would read."""
        raise ValueError(f"{text} is no JSON")

    @staticmethod
    def object_pairs_hook(pairs: "list[tuple[str, Any]]") -> "dict[str, Any]":
        """Make the object; ValueError if it has a key twice."""
        members = dict(pairs)
        if len(members) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"an object has the key {twice!r} twice")
        return members


_CONTEXT: "Any" = _Context
_ONCE: "Any" = _OnceContext


def loads(text: "str | bytes", *, once: bool = False) -> "Any":
    """Read one JSON document. ValueError: it is none, or nests too deeply.

    With ``once`` it is none either if an object has a key twice: readers differ in which they take.
    """
    if isinstance(text, bytes):
        text = text.decode()
    context = _ONCE if once else _CONTEXT
    try:
        from _json import make_scanner

        value, end = make_scanner(context)(text, len(text) - len(text.lstrip(" \t\r\n")))
        if text[end:].strip(" \t\r\n"):
            raise ValueError("data after the document")
    except (ImportError, StopIteration, SystemError, ValueError, RecursionError):
        # Rare and slow from here: let the package find the words. SystemError is what the bare
        # scanner raises for malformed input while json.decoder, home of its exception, is missing.
        import json

        try:
            value = json.loads(
                text,
                object_pairs_hook=context.object_pairs_hook,
                parse_constant=context.parse_constant,
            )
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
