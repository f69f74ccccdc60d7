"""The labs in which each kind of start and exec is tried."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from behaviour.lab import RUNTIMES, Lab, labs
from support import need
from support.containers import supported


@pytest.fixture(scope="package")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Lab]]]:
    """Yield the labs of each runtime: the bare one and one for each setting."""
    need.kernel(supported(), "containers run here as root on x86-64 only")
    with ExitStack() as stack:
        found = {}
        for runtime in RUNTIMES:
            need.program(runtime)
            folder = tmp_path_factory.mktemp(runtime)
            found[runtime] = stack.enter_context(labs(folder, runtime))
        yield found
