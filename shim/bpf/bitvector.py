"""32-bit words whose bits are functions of the input: the arithmetic of BPF, exactly.

A word is a tuple of 32 nodes of a ``Diagram``, the most significant bit first.
"""

from collections.abc import Callable

from shim import abi
from shim.bpf.bdd import FALSE, TRUE, Diagram

Word = tuple[int, ...]
_BITS = range(32)
# What an operation on constants costs, of which the diagram counts nothing.
_WORD_STEPS = 10


def constant(value: int) -> Word:
    """Return the word that is always ``value``."""
    return tuple([value >> (31 - i) & 1 for i in _BITS])


def word_input(diagram: Diagram, rank: int) -> Word:
    """Return the ``rank``-th word of the input: variables ``32 * rank`` and on."""
    return tuple([diagram.node(32 * rank + i, TRUE, FALSE) for i in _BITS])


def compare(diagram: Diagram, op: int, a: Word, b: Word) -> int:
    """Return the condition ``a op b`` of a BPF jump (BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET)."""
    diagram.spend(_WORD_STEPS // 2)
    ite = diagram.ite
    if op == abi.BPF_JSET:
        result = FALSE
        for bit, other in zip(reversed(a), reversed(b), strict=True):
            result = ite(ite(bit, other, FALSE), TRUE, result)
        return result
    # From the least significant bit up: each more significant one decides where it differs.
    result = FALSE if op == abi.BPF_JGT else TRUE
    larger = FALSE if op == abi.BPF_JEQ else TRUE
    smaller = FALSE
    for bit, other in zip(reversed(a), reversed(b), strict=True):
        result = ite(bit, ite(other, result, larger), ite(other, smaller, result))
    return result


def calculate(diagram: Diagram, op: int, a: Word, b: Word) -> Word:
    """Return ``a op b``; a shift counts modulo 32, and a division by zero gives anything."""
    diagram.spend(_WORD_STEPS)
    ite = diagram.ite
    if op == abi.BPF_AND:
        return tuple([ite(x, y, FALSE) for x, y in zip(a, b, strict=True)])
    if op == abi.BPF_OR:
        return tuple([ite(x, TRUE, y) for x, y in zip(a, b, strict=True)])
    if op == abi.BPF_XOR:
        return tuple([ite(x, _not(diagram, y), y) for x, y in zip(a, b, strict=True)])
    if op == abi.BPF_ADD:
        return _add(diagram, a, b, FALSE)
    if op == abi.BPF_SUB:
        return _subtract(diagram, a, b)
    if op == abi.BPF_MUL:
        return _multiply(diagram, a, b)
    if op == abi.BPF_DIV:
        return _divide(diagram, a, b)
    return _shift(diagram, a, b, left=op == abi.BPF_LSH)


def value_of(diagram: Diagram, word: Word, translate: Callable[[int], int]) -> int:
    """Return the function whose leaves are what ``translate`` makes of the values of ``word``."""
    memo: dict[Word, int] = {}

    def expand(bits: Word) -> int:
        result = memo.get(bits)
        if result is None:
            diagram.spend(len(bits))
            top = min(bits, key=diagram.variable.__getitem__)
            if diagram.is_leaf(top):
                result = diagram.leaf(translate(int("".join(map(str, bits)), 2)))
            else:
                variable = diagram.variable[top]
                halves = [diagram.split(bit, variable) for bit in bits]
                result = diagram.node(
                    variable,
                    expand(tuple([high for high, _ in halves])),
                    expand(tuple([low for _, low in halves])),
                )
            memo[bits] = result
        return result

    return expand(word)


def _not(diagram: Diagram, bit: int) -> int:
    return diagram.ite(bit, FALSE, TRUE)


def _add(diagram: Diagram, a: Word, b: Word, carry: int) -> Word:
    diagram.spend(_WORD_STEPS)
    ite = diagram.ite
    total = []
    for x, y in zip(reversed(a), reversed(b), strict=True):
        both = ite(y, _not(diagram, carry), carry)
        total.append(ite(x, _not(diagram, both), both))
        carry = ite(x, ite(y, TRUE, carry), ite(y, carry, FALSE))
    return tuple(reversed(total))


def _subtract(diagram: Diagram, a: Word, b: Word) -> Word:
    return _add(diagram, a, tuple([_not(diagram, bit) for bit in b]), TRUE)


def _multiply(diagram: Diagram, a: Word, b: Word) -> Word:
    if all(bit in (FALSE, TRUE) for bit in a):
        a, b = b, a
    total = constant(0)
    for place, factor in enumerate(reversed(b)):
        if factor != FALSE:
            diagram.spend(_WORD_STEPS)
            shifted = (*a[place:], *[FALSE] * place)
            part = tuple([diagram.ite(factor, bit, FALSE) for bit in shifted])
            total = _add(diagram, total, part, FALSE)
    return total


def _divide(diagram: Diagram, a: Word, b: Word) -> Word:
    """Divide bit by bit, as on paper; the remainder needs one bit more than the divisor."""
    divisor = (FALSE, *b)
    remainder: Word = (FALSE,) * 33
    quotient = []
    for bit in a:
        remainder = (*remainder[1:], bit)
        diagram.spend(_WORD_STEPS)
        fits = compare(diagram, abi.BPF_JGE, remainder, divisor)
        less = _subtract(diagram, remainder, divisor)
        remainder = tuple([diagram.ite(fits, x, y) for x, y in zip(less, remainder, strict=True)])
        quotient.append(fits)
    return tuple(quotient)


def _shift(diagram: Diagram, a: Word, b: Word, *, left: bool) -> Word:
    diagram.spend(_WORD_STEPS)
    for place, by in enumerate(reversed(b[27:])):
        count = 1 << place
        gap = [FALSE] * count
        moved = (*a[count:], *gap) if left else (*gap, *a[:-count])
        a = tuple([diagram.ite(by, x, y) for x, y in zip(moved, a, strict=True)])
    return a
