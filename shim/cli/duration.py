"""How long or how far back, as several verbs take it: 30s, 5m, 1h, 2d, 1w."""

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MOST = 10 * 365 * 86400  # longer is a slip of the finger, and no clock reaches that far back


def seconds(text: str) -> float | None:
    """Return how many seconds are meant; None: it is no time, or none that ends."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", text, re.ASCII)
    if match is None:
        return None
    found = float(match[1]) * _SECONDS[match[2]]
    return found if 0 < found <= _MOST else None
