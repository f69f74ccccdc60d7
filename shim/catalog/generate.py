"""Write what is generated from profiles/: ``python -m shim.catalog.generate``."""

import csv
import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from shim.errors import ShimError

_CHECKOUT = Path(__file__).parents[2]
SOURCE = _CHECKOUT / "profiles" / "syscalls.yaml"
OLDER = _CHECKOUT / "profiles" / "syscalls-before-3.17.csv"
# Every container start imports the first, and the second where a profile allows a call by name.
INJECTED = _CHECKOUT / "shim" / "injected.py"
TARGET = _CHECKOUT / "shim" / "catalog" / "data.py"
# It imports this one too, where the setting unknown_calls asks for it.
NATIVE = _CHECKOUT / "shim" / "catalog" / "native.py"
TABLE = _CHECKOUT / "shim" / "catalog" / "calls.tsv"

# What each text of an entry looks like. What people alone read stays where it is.
_PROSE = r'[^"\\\n\t]{6,90}'
_TEXTS = {
    "name": "[a-z_][a-z0-9_]*",
    "class": "kernel-injected|program",
    "kernel": r"\d+\.\d+(\.\d+)?",
    "libseccomp": r"(\d+\.\d+\.\d+)?",
    "risk": _PROSE,
    "users": _PROSE,
    "source": _PROSE,
}
# From this number on all architectures share them.
_FIRST = 424
_INDENT = "    "
_NUMBERS = {"number", "numbers", "not_on"}
_HEAD = '''"""Generated from profiles/syscalls.yaml by shim/catalog/generate.py: do not edit."""

# The calls that kernels make processes issue.
ROWS: tuple[tuple[str, dict[str, int], str, str], ...] = (
{rows}
)

# From this number on all architectures share them.
FIRST = {first}
# The calls since then that every libseccomp knows which knows one of those above.
LATER = (
{later}
)  # fmt: skip
'''

_INJECTED = '''\
"""Generated from profiles/syscalls.yaml by shim/catalog/generate.py: do not edit.

The calls that a kernel makes a process issue without the program's doing, by name, and their
numbers on x86-64: all of the catalogue that a container start reads.
"""

X86_64 = {{
{rows}
}}
'''

_NATIVE = '''"""Generated from profiles/ by shim/catalog/generate.py: do not edit."""

# The calls that programs make on x86-64, by number: name, number, first release of libseccomp.
CALLS: tuple[tuple[str, int, str], ...] = (
{rows}
)
'''


class Row(NamedTuple):
    """One call as calls.tsv has it."""

    name: str
    kernel: str
    libseccomp: str
    kind: str
    numbers: dict[str, int]
    risk: str = ""
    users: str = ""


def rows(text: str, older: str = "", subject: str = str(SOURCE)) -> list[Row]:
    """Return the calls of the catalogue ``text`` (YAML) and of the table ``older`` (CSV).

    ShimError names the first entry that is not well-formed, or the name or number listed twice.
    """
    try:
        document = yaml.safe_load(text)
        shared_by, entries = document["shared_by"], document["syscalls"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ShimError(f"is not a catalogue: {error!r}", subject=subject) from None
    found = _older(older)
    taken = {fact for row in found for fact in (row.name, *row.numbers.items())}
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
        name, kernel, libseccomp = (entry[key] for key in ("name", "kernel", "libseccomp"))
        prose = entry["risk"], entry["users"]
        found.append(Row(name, kernel, libseccomp, entry["class"], numbers, *prose))
    return found


def render(found: list[Row]) -> tuple[str, str]:
    """Return the module data.py and the table calls.tsv for the calls ``found``."""
    injected = [row for row in found if row.kind == "kernel-injected"]
    lines = (
        f'    ("{row.name}", {{{_pairs(row.numbers)}}}, "{row.kind}", "{row.libseccomp}"),'
        for row in injected
    )
    since = min((_parts(row.libseccomp) for row in injected), default=())
    later = [
        f'"{row.name}",'
        for row in found
        if _parts(row.libseccomp) < since and row.numbers.get("x86_64", 0) >= _FIRST
    ]
    listed = textwrap.fill(" ".join(later), 96, initial_indent=_INDENT, subsequent_indent=_INDENT)
    module = _HEAD.format(rows="\n".join(lines), first=_FIRST, later=listed)
    return module, "".join(_line(row) for row in found)


def injected(found: list[Row]) -> str:
    """Return the module injected.py for the calls ``found``."""
    lines = (
        f'    "{row.name}": {row.numbers["x86_64"]},'
        for row in found
        if row.kind == "kernel-injected" and "x86_64" in row.numbers
    )
    return _INJECTED.format(rows="\n".join(lines))


def native(found: list[Row]) -> str:
    """Return the module native.py for the calls ``found``."""
    calls = sorted(
        (row.numbers["x86_64"], row.name, row.libseccomp)
        for row in found
        if "x86_64" in row.numbers and row.kind != "kernel-injected"
    )
    rows = (f'    ("{name}", {number}, "{release}"),' for number, name, release in calls)
    return _NATIVE.format(rows="\n".join(rows))


def _parts(release: str) -> tuple[int, ...]:
    """Return the numbers of a release; none of one that is not out yet."""
    return tuple(map(int, release.split("."))) if release else (99,)


def _pairs(table: dict[str, int]) -> str:
    return ", ".join(f'"{arch}": {number}' for arch, number in table.items())


def _line(row: Row) -> str:
    numbers = " ".join(f"{arch}={number}" for arch, number in row.numbers.items())
    return "\t".join((*row[:4], numbers, row.risk, row.users)) + "\n"


def _older(text: str) -> list[Row]:
    """Read the table of calls that have a line each: whoever is that old, programs call it."""
    found = []
    for entry in csv.DictReader(text.splitlines()):
        name, kernel, libseccomp = (entry.pop(key) for key in ("name", "kernel", "libseccomp"))
        numbers = {arch: int(number) for arch, number in entry.items() if number}
        found.append(Row(name, kernel, libseccomp, "program", numbers))
    return found


def _checked(entry: Any, shared_by: list[str]) -> dict[str, int]:
    """Return the numbers of ``entry`` by architecture; ValueError says what is wrong with it."""
    if not isinstance(entry, dict):
        raise ValueError("is not a mapping")
    keys = entry.keys() - _NUMBERS
    if keys != _TEXTS.keys() or ("number" in entry) == ("numbers" in entry):
        raise ValueError(f"needs number or numbers, and exactly {', '.join(_TEXTS)}")
    for key, pattern in _TEXTS.items():
        if not isinstance(entry[key], str) or not re.fullmatch(pattern, entry[key]):
            raise ValueError(f"{key} {entry[key]!r} does not look like {pattern}")
    lacking = entry.get("not_on", [])
    if not isinstance(lacking, list) or not set(lacking) <= set(shared_by):
        raise ValueError(f"not_on {lacking!r} does not list architectures")
    sharing = [arch for arch in shared_by if arch not in lacking]
    numbers = entry.get("numbers") or dict.fromkeys(sharing, entry.get("number"))
    if not isinstance(numbers, dict) or not all(
        isinstance(arch, str) and type(number) is int and 0 <= number < 1 << 30
        for arch, number in numbers.items()
    ):
        raise ValueError(f"has no usable numbers: {numbers!r}")
    if "number" in entry and entry["number"] < _FIRST:
        raise ValueError(f"architectures share numbers from {_FIRST} on only")
    return numbers


if __name__ == "__main__":
    all_rows = rows(SOURCE.read_text(), OLDER.read_text())
    module, table = render(all_rows)
    INJECTED.write_text(injected(all_rows))
    NATIVE.write_text(native(all_rows))
    TARGET.write_text(module)
    TABLE.write_text(table)
