"""Views of this host with seccomp-shim, as install.sh leaves it, and without."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.checkout import CHECKOUT
from support.host import Host, listing, throwaway


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, list[str], str]]:
    """Yield a view with seccomp-shim installed, the files before that, and what was said."""
    with throwaway(tmp_path_factory.mktemp("base")) as view:
        before = listing(view)
        said = view.run(f"umask 077; cd /tmp; {CHECKOUT}/install.sh --no-demo").stdout
        yield view, before, said


@pytest.fixture
def installed(tmp_path: Path, base: tuple[Host, list[str], str]) -> Iterator[Host]:
    """Yield a view of a host with seccomp-shim that forgets all that is done to it."""
    with throwaway(tmp_path, base[0]) as view:
        yield view


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Yield a view of this host without seccomp-shim that forgets all that is done to it."""
    with throwaway(tmp_path) as view:
        yield view
