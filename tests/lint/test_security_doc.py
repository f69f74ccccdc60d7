"""docs/security.md promises nothing without a test."""

import ast
import re

from support.checkout import CHECKOUT

_TEXT = (CHECKOUT / "docs/security.md").read_text()
_TEST = re.compile(r"`(\w+/test_\w+\.py)(?:::(test_\w+))?`")
_FREE = ("## What is drawn at random", "## What is not protected")


def promises() -> list[str]:
    """Return each promise: an entry of a list, with its lines joined."""
    found = []
    for section in re.split(r"\n(?=## )", _TEXT):
        if section.startswith(_FREE):
            continue
        for entry in re.split(r"\n(?=- )", section)[1:]:
            found.append(" ".join(entry.split("\n\n")[0].split()))
    return found


def test_every_promise_names_a_test() -> None:
    """An entry of a list that says what cannot happen says what holds it."""
    without = [each for each in promises() if not _TEST.search(each)]
    assert len(promises()) > 30
    assert not without


def test_every_test_that_is_named_is_there() -> None:
    """Renamed or gone, the promise would hold nothing."""
    named = _TEST.findall(_TEXT)
    assert len(named) > 40
    for name, function in named:
        path = CHECKOUT / "tests" / name
        assert path.exists(), name
        tree = ast.parse(path.read_text())
        functions = {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}
        assert function in functions if function else functions, f"{name}::{function}"
