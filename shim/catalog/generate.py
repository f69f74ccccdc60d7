"""Write data.py from profiles/syscalls.yaml: ``python -m shim.catalog.generate``."""

import re
from pathlib import Path
from typing import Any

import yaml

from shim.errors import ShimError

_CHECKOUT = Path(__file__).parents[2]
SOURCE = _CHECKOUT / "profiles" / "syscalls.yaml"
TARGET = _CHECKOUT / "shim" / "catalog" / "data.py"

# What each text of an entry looks like. What people alone read stays where it is.
_PROSE = r'[^"\\\n]{6,86}'
_TEXTS = {
    "name": "[a-z][a-z0-9_]*",
    "class": "kernel-injected|program",
    "kernel": r"\d+\.\d+",
    "libseccomp": r"(\d+\.\d+\.\d+)?",
    "risk": _PROSE,
    "source": _PROSE,
}
_HEAD = '''"""Generated from profiles/syscalls.yaml by shim/catalog/generate.py: do not edit."""

_SHARED_BY = (
{shared_by}
)

ROWS: tuple[tuple[str, dict[str, int], str, str], ...] = (
{rows}
)
'''


def render(text: str, subject: str = str(SOURCE)) -> str:
    """Return the Python module for the catalogue ``text`` (YAML).

    ShimError names the first entry that is not well-formed, or the name or number listed twice.
    """
    try:
        document = yaml.safe_load(text)
        shared_by, entries = document["shared_by"], document["syscalls"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ShimError(f"is not a catalogue: {error!r}", subject=subject) from None
    taken: set[object] = set()
    rows = []
    for entry in entries:
        try:
            numbers = _checked(entry, shared_by)
        except ValueError as error:
            name = entry.get("name", entry) if isinstance(entry, dict) else entry
            raise ShimError(f"{name}: {error}", subject=subject) from None
        facts = {entry["name"], *numbers.items()}
        if twice := facts & taken:
            raise ShimError(f"{entry['name']}: {twice.pop()} is listed twice", subject=subject)
        taken |= facts
        rows.append(_row(entry, numbers))
    return _HEAD.format(
        shared_by="\n".join(f'    "{arch}",' for arch in shared_by), rows="\n".join(rows)
    )


def _checked(entry: Any, shared_by: list[str]) -> dict[str, int]:
    """Return the numbers of ``entry`` by architecture; ValueError says what is wrong with it."""
    if not isinstance(entry, dict):
        raise ValueError("is not a mapping")
    keys = entry.keys() - {"number", "numbers"}
    if keys != _TEXTS.keys() or len(entry) != len(keys) + 1:
        raise ValueError(f"needs number or numbers, and exactly {', '.join(_TEXTS)}")
    for key, pattern in _TEXTS.items():
        if not isinstance(entry[key], str) or not re.fullmatch(pattern, entry[key]):
            raise ValueError(f"{key} {entry[key]!r} does not look like {pattern}")
    numbers = entry.get("numbers") or dict.fromkeys(shared_by, entry.get("number"))
    if not isinstance(numbers, dict) or not all(
        isinstance(arch, str) and type(number) is int and 0 <= number < 1 << 30
        for arch, number in numbers.items()
    ):
        raise ValueError(f"has no usable numbers: {numbers!r}")
    return numbers


def _row(entry: dict[str, Any], numbers: dict[str, int]) -> str:
    if "number" in entry:
        mapping = f"dict.fromkeys(_SHARED_BY, {entry['number']})"
    else:
        mapping = "{" + ", ".join(f'"{arch}": {nr}' for arch, nr in numbers.items()) + "}"
    name, kind, libseccomp = (f'"{entry[key]}"' for key in ("name", "class", "libseccomp"))
    return f"    ({name}, {mapping}, {kind}, {libseccomp}),"


if __name__ == "__main__":
    TARGET.write_text(render(SOURCE.read_text()))
