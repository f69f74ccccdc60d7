"""Options of the test run; ``tests/run`` passes its arguments on to here."""

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest

# A busy machine, which the tests themselves make, is no finding. In CI the drawn examples are the
# same at each run, so that a change stands or falls by itself; developers' runs go on exploring.
hypothesis.settings.register_profile("shim", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("shim")

# Run only where they are asked for, each by the option of its name.
SUITES = ("slow", "vm", "sweep")

# Whole hosts, nodes, daemons: minutes a file. They come first, so that at the end no worker is left
# alone with one of them.
ROOMS = ("fleet", "transaction", "health", "ansible", "node", "install", "engines")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switches for the suites that take minutes."""
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--vm", action="store_true", help="also boot the virtual machines")
    parser.addoption("--sweep", action="store_true", help="also run the whole sweeps, by hand")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files unread that have no test of the suite that is run alone (``-m slow``).

    It takes seconds to read them all, in each worker, and makes each a process that takes longer to
    fork.
    """
    suite = config.option.markexpr
    if suite not in SUITES or not collection_path.name.startswith("test_"):
        return None
    return f"mark.{suite}" not in collection_path.read_text() or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the suites out that were not asked for, and put the longest files first."""
    left_out = [m for m in SUITES if not config.getoption(f"--{m}")]
    wanted = [i for i in items if not any(i.get_closest_marker(m) for m in left_out)]
    config.hook.pytest_deselected(items=[i for i in items if i not in wanted])
    items[:] = sorted(wanted, key=_turn)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Have no other worker run a test beside one that is marked ``alone``."""
    with _beside(item):
        return (yield)


@contextmanager
def _beside(item: pytest.Item) -> Iterator[None]:
    """Take a lock that the workers share, or, for a test that is ``alone``, have it for itself.

    At the gate one that waits for all others is not overtaken by them.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    folder = Path(item.config.option.basetemp).parent
    with open(folder / "gate.lock", "w") as gate, open(folder / "tests.lock", "w") as tests:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(tests, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


def _turn(item: pytest.Item) -> int:
    room = Path(item.path).relative_to(Path(__file__).parent).parts[0]
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)
