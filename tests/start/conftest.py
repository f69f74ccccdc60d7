"""What the tests of the start path are given: real runtimes, and what stands before them."""

from pathlib import Path

import pytest

from support import need
from support.containers import real
from support.joined import Joiner
from support.wrapped import Recorder, WrappedLab


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    """Return the path of each real runtime."""
    return real(request.param)


@pytest.fixture
def lab(runtime: str, tmp_path: Path) -> WrappedLab:
    """Return a directory with the wrapper and the hooks for each real runtime."""
    return WrappedLab(tmp_path, runtime)


@pytest.fixture
def runc(tmp_path: Path) -> WrappedLab:
    """Return a directory with them for runc, whose containers are adjusted by injection."""
    return WrappedLab(tmp_path, real("runc"))


@pytest.fixture
def crun(tmp_path: Path) -> WrappedLab:
    """Return a directory with them for crun, which is given a program."""
    return WrappedLab(tmp_path, real("crun"))


@pytest.fixture
def joiner(runtime: str, tmp_path: Path) -> Joiner:
    """Return a directory with the wrapper for each runtime, and a container to join."""
    return Joiner(tmp_path, runtime)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """Return a wrapper whose runtime and interpreter only record."""
    need.root()  # the wrapper's executables name no interpreter that another user may replace
    return Recorder(tmp_path)
