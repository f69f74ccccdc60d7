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

    @staticmethod
    def parse_constant(name: str) -> float:
        """Refuse NaN and the infinities, which JSON (RFC 8259) does not have."""
        raise ValueError(f"{name} is not JSON")


def loads(text: "str | bytes") -> "Any":
    """Read one JSON document. ValueError: it is none (or nests deeper than the interpreter allows)."""
    if isinstance(text, bytes):
        text = text.decode()
    try:
        from _json import make_scanner
    except ImportError:
        import json

        return json.loads(text)
    text = text.strip(" \t\r\n")
    try:
        value, end = make_scanner(_Context)(text, 0)
    except StopIteration as stop:
        raise ValueError(f"not JSON at character {stop.value}") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    if end != len(text):
        raise ValueError(f"data after the JSON document at character {end}")
    return value


def dumps(value: "Any") -> str:
    """Write one JSON document on one line, everything but ASCII escaped."""
    try:
        from _json import encode_basestring_ascii, make_encoder
    except ImportError:
        import json

        return json.dumps(value)
    encoder = make_encoder(None, _unsupported, encode_basestring_ascii, None, ": ", ", ", False, False, False)
    return "".join(encoder(value, 0))


def _unsupported(value: object) -> "Any":
    raise TypeError(f"{type(value).__name__} is not JSON")
