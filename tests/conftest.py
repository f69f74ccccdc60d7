"""Options of the test run; ``tests/run`` passes its arguments on to here."""

import os

import hypothesis
import pytest

# A busy machine, which the tests themselves make, is no finding. In CI the drawn examples are the
# same at each run, so that a change stands or falls by itself; developers' runs go on exploring.
hypothesis.settings.register_profile("shim", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("shim")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switches for the suites that take minutes."""
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--vm", action="store_true", help="also boot the virtual machines")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the suites out that were not asked for."""
    left_out = [m for m in ("slow", "vm") if not config.getoption(f"--{m}")]
    wanted = [i for i in items if not any(i.get_closest_marker(m) for m in left_out)]
    config.hook.pytest_deselected(items=[i for i in items if i not in wanted])
    items[:] = wanted
