"""What may differ between a bare runtime and the wrapper: nothing but what the manual says."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from support.checkout import CHECKOUT

MANUAL = CHECKOUT / "docs/runtime-wrapper.md"
_HEADING = "## What differs\n"
_COLUMNS = 5
_SHOWN = 60


@dataclass(frozen=True)
class Row:
    """One line of the manual's table: patterns of names, but for the reason."""

    kinds: tuple[str, ...]
    runtimes: tuple[str, ...]
    settings: tuple[str, ...]
    aspects: tuple[str, ...]
    reason: str

    def covers(self, kind: str, runtime: str, setting: str, aspect: str) -> bool:
        """Tell whether this line allows a difference."""
        names = zip(
            (self.kinds, self.runtimes, self.settings, self.aspects),
            (kind, runtime, setting, aspect),
            strict=True,
        )
        return all(any(fnmatchcase(name, one) for one in patterns) for patterns, name in names)


def documented(text: str = "") -> list[Row]:
    """Return the lines of the manual's table."""
    text = text or MANUAL.read_text()
    section = text.partition(_HEADING)[2].partition("\n## ")[0]
    rows = []
    for line in section.splitlines():
        if not line.startswith("| `"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == _COLUMNS, line
        kinds, runtimes, settings, aspects = (
            tuple(re.findall(r"`([^`]+)`", cell)) for cell in cells[:-1]
        )
        assert kinds and runtimes and settings and aspects and cells[-1], line  # noqa: PT018
        rows.append(Row(kinds, runtimes, settings, aspects, cells[-1]))
    assert rows, f"{MANUAL} has no table under {_HEADING!r}"
    return rows


def difference(bare: Sequence[Mapping[str, str]], wrapped: Mapping[str, str]) -> dict[str, str]:
    """Return what was seen otherwise through the wrapper: the aspect, and both.

    ``bare`` is one or several looks at the bare runtime: what one of them shows is no difference.
    """
    found = {}
    for aspect in sorted({*wrapped}.union(*bare)):
        after = wrapped.get(aspect)
        if after not in (seen := [each.get(aspect) for each in bare]):
            before = seen[0]
            pairs = zip(before or "", after or "", strict=False)
            same = next((i for i, (one, two) in enumerate(pairs) if one != two), 0)
            found[aspect] = f"bare    {_part(before, same)}\n    wrapped {_part(after, same)}"
    return found


def undocumented(
    found: Mapping[str, str], rows: list[Row], kind: str, runtime: str, setting: str
) -> dict[str, str]:
    """Return those of the differences that no line of the table allows."""
    return {
        aspect: how
        for aspect, how in found.items()
        if not any(row.covers(kind, runtime, setting, aspect) for row in rows)
    }


def _part(text: str | None, same: int) -> str:
    """Return what is to be seen of a text whose first ``same`` characters do not differ."""
    if text is None:
        return "nothing"
    begin = max(0, same - _SHOWN)
    return f"{'...' if begin else ''}{text[begin : same + 3 * _SHOWN]!r}"
