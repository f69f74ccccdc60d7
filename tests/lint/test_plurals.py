"""What is counted agrees with its number."""

import ast
import re
from pathlib import Path

import pytest

from shim.errors import counted
from support.checkout import CHECKOUT

_NOUN = re.compile(
    r" (more |running |home )?(adjustments|containers|directories|files|filters|hosts|"
    r"instructions|pods|profiles|users)\b"
)


@pytest.mark.parametrize(
    ("number", "nouns", "told"),
    [
        (0, ("file",), "0 files"),
        (1, ("file",), "1 file"),
        (2, ("file",), "2 files"),
        (1, ("home directory is", "home directories are"), "1 home directory is"),
        (3, ("home directory is", "home directories are"), "3 home directories are"),
    ],
)
def test_a_number_and_its_noun(number: int, nouns: tuple[str, ...], told: str) -> None:
    """One of a thing is not several."""
    assert counted(number, *nouns) == told


def test_no_number_stands_before_a_fixed_plural() -> None:
    """Whatever counts things in a text asks ``counted`` for the noun."""
    wrong = [
        f"{path.relative_to(CHECKOUT)}:{node.lineno}"
        for path in sorted(Path(CHECKOUT, "shim").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.JoinedStr)
        for value, behind in zip(node.values, node.values[1:], strict=False)
        if isinstance(value, ast.FormattedValue)
        and isinstance(behind, ast.Constant)
        and _NOUN.match(str(behind.value))
        and re.search(r"len\(|count|sum\(|total", ast.unparse(value.value))
        and "counted" not in ast.unparse(value.value)
    ]
    # a prefix of instructions, which is never one, is logged as it is
    assert [each for each in wrong if not each.startswith("shim/start/inject/augment.py:")] == []
