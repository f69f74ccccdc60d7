"""How many inputs a fuzzer takes, and the counts that are printed at the end of the run."""

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

SEED = 335
_COUNTS: dict[str, Counter[str]] = {}


class Inputs:
    """The inputs of one fuzzer: as many as wanted, the same at each run; ``count`` what came."""

    def __init__(self, name: str, number: int) -> None:
        self.number = number
        self.random = random.Random(f"{SEED}-{name}")  # noqa: S311 - the same each time
        self.counts = _COUNTS.setdefault(name, Counter())

    def __iter__(self) -> Iterator[random.Random]:
        for _ in range(self.number):
            self.counts["inputs"] += 1
            yield self.random

    def count(self, outcome: str) -> None:
        """Count one outcome."""
        self.counts[outcome] += 1


@pytest.fixture
def inputs(request: pytest.FixtureRequest) -> Callable[..., Inputs]:
    """Return the maker of inputs: ``few`` in the ordinary suite, ``many`` with --sweep."""

    def make(name: str, *, few: int, many: int) -> Inputs:
        return Inputs(name, many if request.config.getoption("--sweep") else few)

    return make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was counted."""
    for name, counts in sorted(_COUNTS.items()):
        text = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
        terminalreporter.write_line(f"fuzz {name}: {text}")
