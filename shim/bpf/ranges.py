"""Read the values of one 32-bit word back out of a decision diagram."""

from dataclasses import dataclass

from shim.bpf.bdd import Diagram

_WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Region:
    """The values ``low`` to ``high`` of a word, or those that equal ``low`` in some bits.

    ``care`` is the mask of those bits, where they are not just the topmost; 0 means a plain range.
    """

    low: int
    high: int
    care: int = 0

    @property
    def is_range(self) -> bool:
        """Tell whether it holds all values from ``low`` to ``high``."""
        return not self.care

    @property
    def single(self) -> int | None:
        """Return the one value that it holds, or None if it holds several."""
        return self.low if self.low == self.high else None

    def minus(self, offset: int) -> "Region":
        """Return the region with ``offset``, a bit that all its values have, taken off."""
        return Region(self.low - offset, self.high - offset, self.care & ~offset)

    def condition(self, name: str) -> str:
        """Say that ``name`` is in it; empty if all words are."""
        if self.care:
            return f"{name} & {self.care:#x} == {self.low:#x}"
        if self.low == self.high:
            return f"{name} == {self.low:#x}"
        if self.low == 0:
            return "" if self.high == _WORD else f"{name} <= {self.high:#x}"
        if self.high == _WORD:
            return f"{name} >= {self.low:#x}"
        return f"{name} in {self.low:#x}..{self.high:#x}"

    def __str__(self) -> str:
        if self.care:
            return f"n & {self.care:#x} == {self.low:#x}"
        return str(self.low) if self.low == self.high else f"{self.low}..{self.high}"


def regions(diagram: Diagram, node: int, rank: int) -> list[tuple[int, list[Region]]]:
    """Return what ``node`` becomes for each value of the ``rank``-th word, and the values for it.

    Leaves of the value None are left out. TooLarge: too many paths.
    """
    end = 32 * (rank + 1)
    found: dict[int, list[Region]] = {}
    stack = [(node, 0, 0)]
    while stack:
        diagram.spend()
        node, value, care = stack.pop()
        variable = diagram.variable[node]
        if variable < end:
            bit = 1 << (end - 1 - variable)
            stack.append((diagram.high[node], value | bit, care | bit))
            stack.append((diagram.low[node], value, care | bit))
        elif not diagram.is_leaf(node) or diagram.value[node] is not None:
            _add(found.setdefault(node, []), value, care)
    return sorted(
        ((node, _joined(where)) for node, where in found.items()), key=lambda item: item[1][0].low
    )


def _add(where: list[Region], value: int, care: int) -> None:
    free = ~care & _WORD
    gap = free & ~((care & -care) - 1) if care else 0
    if 0 < gap.bit_count() <= 3:
        # A few scattered ranges (the x32 twin of a number) say more than a mask.
        bit = gap & -gap
        for half in (value, value | bit):
            _add(where, half, care | bit)
        return
    if free & (free + 1):
        where.append(Region(value, value | free, care))
    else:
        where.append(Region(value, value | free))


def _joined(where: list[Region]) -> list[Region]:
    """Put them in order and join the ranges that touch."""
    result: list[Region] = []
    for region in sorted(where, key=lambda each: each.low):
        last = result[-1] if result else None
        if last and last.is_range and region.is_range and last.high + 1 == region.low:
            result[-1] = Region(last.low, region.high)
        else:
            result.append(region)
    return result
