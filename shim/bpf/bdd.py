"""Decision diagrams: the whole of a loop-free program as a function of its input bits.

Reduced, ordered and shared (Bryant 1986), with any hashable value at the leaves: two functions are
equal exactly if they are the same node. A condition is a diagram whose leaves are 0 and 1.
"""

from collections.abc import Hashable

FALSE, TRUE = 0, 1
_LEAF = 1 << 30


class Diagram:
    """A set of shared nodes; TooLarge once ``limit`` steps of work have been spent on it.

    A node is an index. Its variable is smaller than those of its two children.
    """

    __slots__ = ("_ite", "_leaves", "_left", "_unique", "high", "low", "value", "variable")

    def __init__(self, limit: int) -> None:
        self.variable: list[int] = []
        self.high: list[int] = []
        self.low: list[int] = []
        self.value: list[Hashable] = []
        self._leaves: dict[Hashable, int] = {}
        self._unique: dict[tuple[int, int, int], int] = {}
        self._ite: dict[tuple[int, int, int], int] = {}
        self._left = limit
        self.leaf(0)
        self.leaf(1)

    def is_leaf(self, node: int) -> bool:
        """Tell whether ``node`` is a value and no decision."""
        return self.variable[node] == _LEAF

    def leaf(self, value: Hashable) -> int:
        """Return the node of the constant function ``value``."""
        node = self._leaves.get(value)
        if node is None:
            node = self._leaves[value] = self._append(_LEAF, 0, 0, value)
        return node

    def node(self, variable: int, high: int, low: int) -> int:
        """Return the function that is ``high`` where ``variable`` is set and ``low`` elsewhere."""
        if high == low:
            return high
        key = (variable, high, low)
        found = self._unique.get(key)
        if found is None:
            found = self._unique[key] = self._append(variable, high, low, None)
        return found

    def ite(self, condition: int, yes: int, no: int) -> int:
        """Return the function that is ``yes`` where ``condition`` holds and ``no`` elsewhere."""
        if condition == TRUE or yes == no:
            return yes
        if condition == FALSE:
            return no
        if yes == TRUE and no == FALSE:
            return condition
        self.spend()
        key = (condition, yes, no)
        result = self._ite.get(key)
        if result is None:
            variable = self.variable
            top = min(variable[condition], variable[yes], variable[no])
            c1, c0 = self.split(condition, top)
            y1, y0 = self.split(yes, top)
            n1, n0 = self.split(no, top)
            result = self.node(top, self.ite(c1, y1, n1), self.ite(c0, y0, n0))
            self._ite[key] = result
        return result

    def split(self, node: int, variable: int) -> tuple[int, int]:
        """Return ``node`` where ``variable``, which is none below its own, is set and where not."""
        if self.variable[node] == variable:
            return self.high[node], self.low[node]
        return node, node

    def values(self, root: int) -> set[Hashable]:
        """Return the values of all leaves below ``root``: what the function comes to."""
        found: set[Hashable] = set()
        seen, stack = {root}, [root]
        while stack:
            node = stack.pop()
            if self.is_leaf(node):
                found.add(self.value[node])
                continue
            for below in (self.high[node], self.low[node]):
                if below not in seen:
                    seen.add(below)
                    stack.append(below)
        return found

    def spend(self, steps: int = 1) -> None:
        """Count some steps of work."""
        self._left -= steps
        if self._left < 0:
            raise TooLarge

    def _append(self, variable: int, high: int, low: int, value: Hashable) -> int:
        self.variable.append(variable)
        self.high.append(high)
        self.low.append(low)
        self.value.append(value)
        return len(self.variable) - 1


class TooLarge(Exception):  # noqa: N818 - a limit that is met, not an error of anybody's
    """The work exceeds what was allowed for it."""
