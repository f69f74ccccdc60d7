"""Every kind of start does what it does without the wrapper, but for what the manual names."""

import re
from itertools import product

import pytest
from _pytest.mark.structures import ParameterSet

from behaviour.differences import MANUAL, Row, difference, documented, undocumented
from behaviour.execs import EXECS
from behaviour.kinds import STARTS
from behaviour.kinds_config import CONFIGS
from behaviour.lab import RUNTIMES, SETTINGS, TRIES, Lab
from behaviour.starts import Kind, filtered, observe

KINDS = (*STARTS, *CONFIGS)
CELLS = [
    (kind, runtime, setting)
    for kind in KINDS
    for runtime, setting in product(kind.runtimes, SETTINGS)
]


def sample() -> set[tuple[str, str, str]]:
    """Return one cell of each kind, so that they go round the runtimes and settings."""
    around = list(product(RUNTIMES, SETTINGS))
    chosen = set()
    for number, kind in enumerate(KINDS):
        runtime, setting = around[number * 3 % len(around)]
        chosen.add((kind.name, runtime if runtime in kind.runtimes else kind.runtimes[0], setting))
    return chosen


SAMPLE = sample()
_FIRST = 12
_BARE: dict[tuple[str, str], list[dict[str, str]]] = {}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Return the differences that the manual names."""
    return documented()


def bare(kind: Kind, lab: Lab, *, again: bool = False) -> list[dict[str, str]]:
    """Return what the runtime does by itself, each time that it was looked at."""
    seen = _BARE.setdefault((kind.name, lab.name), [])
    if again or not seen:
        seen.append(observe(kind, lab))
    return seen


def cells(kinds: list[tuple[Kind, str, str]]) -> list[ParameterSet]:
    """Return the parameters of a test; those outside of the sample are a sweep."""
    return [
        pytest.param(
            kind, runtime, setting, id=f"{kind.name}-{runtime}-{setting}",
            marks=() if (kind.name, runtime, setting) in SAMPLE else pytest.mark.sweep,
        )
        for kind, runtime, setting in kinds
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "runtime", "setting"), cells(CELLS))
def test_a_start_is_as_without_the_wrapper(
    runtimes: dict[str, dict[str, Lab]], rows: list[Row], kind: Kind, runtime: str, setting: str
) -> None:
    """Exit status, output, state, what hooks are given, and the files that are left."""
    labs = runtimes[runtime]
    found: dict[str, str] = {}
    for again in range(TRIES):  # a runtime may do one thing now and another then
        seen = bare(kind, labs["bare"], again=again > 0)
        after = observe(kind, labs[setting])
        found = undocumented(difference(seen, after), rows, kind.name, runtime, setting)
        if not found:
            break
    text = "\n".join(f"{aspect}:\n    {how}" for aspect, how in found.items())
    if found:
        pytest.fail(f"docs/runtime-wrapper.md does not name this:\n{text}", pytrace=False)
    adjusted = bool(labs[setting].events("adjusted"))
    if setting == "pass-through" or setting in kind.untouched:
        assert not adjusted
    elif filtered(seen[0]):
        assert adjusted or after["audit"]  # an alarm that the table names


def test_every_line_of_the_table_is_needed(
    runtimes: dict[str, dict[str, Lab]], rows: list[Row]
) -> None:
    """What no longer differs is not to be read about: one of the first that it names does."""
    for row in rows:
        named = [cell for cell in CELLS if row.covers(cell[0].name, *cell[1:], row.aspects[0])]
        assert any(_needs(row, runtimes, *cell) for cell in named[:_FIRST]), row


def _needs(
    row: Row, runtimes: dict[str, dict[str, Lab]], kind: Kind, runtime: str, setting: str
) -> bool:
    labs = runtimes[runtime]
    found = difference(bare(kind, labs["bare"]), observe(kind, labs[setting]))
    return any(row.covers(kind.name, runtime, setting, aspect) for aspect in found)


def test_kinds_are_many_and_have_names_of_their_own() -> None:
    """A name stands for one kind, or the table could not tell them apart."""
    names = [kind.name for kind in KINDS]
    assert len(names) == len(set(names)) >= 60


def test_the_manual_counts_the_kinds() -> None:
    """The numbers in its text are those of the tests."""
    told = re.search(r"starts (\d+) kinds of\s+containers and (\d+) kinds", MANUAL.read_text())
    assert told
    assert [int(number) for number in told.groups()] == [len(KINDS), len(EXECS)]


def test_without_the_wrapper_the_output_is_there(runtimes: dict[str, dict[str, Lab]]) -> None:
    """The control: what is compared is not the same for being empty."""
    for runtime in RUNTIMES:
        seen = observe(KINDS[0], runtimes[runtime]["bare"])
        assert "Seccomp:\t2" in seen["create.stdout"]
        assert "typed" in seen["create.stdout"]
        assert seen["created.exit"] == seen["delete.status"] == "0"
        for stage in ("prestart", "createRuntime", "createContainer", "poststart", "poststop"):
            assert seen[f"hooks.{stage}.calls"] == "1"
            assert f"hooks.{stage}.state.bundle" in seen
