"""The difference of two texts for people and for patch(1)."""

from difflib import unified_diff


def unified(before: str, after: str, name: str) -> str:
    """Return a unified diff that ``patch -p0`` and ``git apply -p0`` take; empty: no difference."""
    lines = unified_diff(_lines(before), _lines(after), name, name)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _lines(text: str) -> list[str]:
    """Split after line feeds only, as diff(1) does; str.splitlines knows a dozen more."""
    *whole, last = text.split("\n")
    return [f"{line}\n" for line in whole] + ([last] if last else [])
