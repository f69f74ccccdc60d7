"""What the start path takes for ``os`` is ``os``, without its import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim import lightos

paths = st.lists(st.sampled_from(["/", "//", ".", "..", "a", "b c", "é", "\0"])).map("".join)


@given(paths, paths)
def test_paths_are_taken_apart_as_os_does(path: str, name: str) -> None:
    """Whatever the path is made of."""
    for function in ("isabs", "split", "dirname", "basename", "abspath", "exists", "isfile"):
        assert getattr(lightos.path, function)(path) == getattr(os.path, function)(path), function
    assert lightos.path.islink(path) == os.path.islink(path)
    assert lightos.path.join(path, name) == os.path.join(path, name)


def test_files_are_seen_as_os_does(tmp_path: Path) -> None:
    """A file, a directory, a link to each, and one that leads nowhere."""
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    for name in ("file", "directory", "nowhere"):
        (tmp_path / f"to-{name}").symlink_to(name)
    for each in map(str, [*tmp_path.iterdir(), tmp_path / "nowhere"]):
        for function in ("exists", "isfile", "islink", "realpath"):
            assert getattr(lightos.path, function)(each) == getattr(os.path, function)(each)


@pytest.mark.parametrize("name", ["open", "environ", "fsencode", "makedirs", "_exit", "O_PATH"])
def test_all_else_is_that_of_os(name: str) -> None:
    """The calls are the same objects, and what is missing is looked up."""
    assert getattr(lightos, name) is getattr(os, name)


def test_os_is_not_imported_for_it() -> None:
    """Neither are the abstract base classes that it brings along."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(lightos.__file__).parents[1])!r}); "
        "import shim.lightos as os; os.close(os.open('/', os.O_RDONLY)); os.path.exists('/'); "
        "print(sorted({'os', '_collections_abc', 'stat'} & set(sys.modules)))"
    )
    command = [os.path.realpath(sys.executable), "-IS", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
