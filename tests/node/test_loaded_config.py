"""What the node's running engines know, by a /proc that says so."""

import os
from pathlib import Path

import pytest

from shim.node.loaded_config import EngineMemory
from shim.node.root import NodeRoot
from shim.node.wrapper import Wrapper

CONFIG = "/etc/containerd/config.toml"


class Proc:
    """A node's root directory with a /proc to put processes into, and its containerd's memory."""

    def __init__(self, top: Path) -> None:
        (top / "run/seccomp-shim").mkdir(parents=True)
        self.folder = top / "proc"
        self.folder.mkdir()
        self.root = NodeRoot(str(top), "")
        self.memory = EngineMemory(self.root, "containerd", CONFIG)

    def starts(self, pid: int, at: int, *words: str, name: str = "containerd") -> None:
        """Have a process there that was started at a time."""
        place = self.folder / str(pid)
        place.mkdir(exist_ok=True)
        fields = ["S", *("0" for _ in range(18)), str(at), "0"]
        (place / "comm").write_text(f"{name}\n")
        (place / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
        (place / "cmdline").write_bytes(b"\0".join(map(os.fsencode, [name, *words])) + b"\0")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """Return one without a process."""
    return Proc(tmp_path)


def test_it_knows_what_was_there_when_it_started(proc: Proc) -> None:
    """One that ran before a change does not know of it; the next one does, even with its number."""
    proc.starts(7, at=100)
    proc.memory.keep("")
    assert proc.memory.known("handler") == [""]
    proc.memory.keep("handler")
    assert proc.memory.known("handler") == [""]
    proc.starts(7, at=200)
    assert proc.memory.known("handler") == ["handler"]


def test_a_removal_that_was_never_read(proc: Proc) -> None:
    """One that knows goes on knowing when the handler is gone from the file, and comes back."""
    proc.starts(7, at=100)
    proc.memory.keep("handler")
    assert proc.memory.known("") == ["handler"]
    proc.memory.keep("")
    assert proc.memory.known("handler") == ["handler"]


@pytest.mark.parametrize(
    ("words", "counts"),
    [
        ([], True),
        (["--log-level", "info"], True),
        (["--config", CONFIG], True),
        ([f"--config={CONFIG}"], True),
        (["-c", CONFIG], True),
        (["--config", "/var/run/docker/containerd/containerd.toml"], False),
        (["--config=/etc/other.toml"], False),
    ],
)
def test_only_what_reads_the_file_counts(proc: Proc, words: list[str], counts: bool) -> None:
    """One with another configuration, or of another name, is none of those to be restarted."""
    proc.starts(7, 100, *words)
    proc.starts(8, 100, name="containerd-shim")
    proc.starts(9, 100, name="a (containerd) b")
    assert proc.memory.known("handler") == (["handler"] if counts else [])


@pytest.mark.parametrize("words", [[], ["--config", CONFIG]])
def test_the_usual_file_need_not_be_named(
    proc: Proc, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job sees a containerd that names its usual file; so it does where it is told of it."""
    proc.starts(7, 100, "--config", CONFIG)
    monkeypatch.setattr(NodeRoot, "script", lambda *_: "")
    monkeypatch.setattr(NodeRoot, "ask", lambda *_: {})
    assert Wrapper(proc.root, ["containerd", *words]).step() == []


def test_what_cannot_be_kept_is_an_error(proc: Proc, tmp_path: Path) -> None:
    """A forgotten process would be taken for one that knows."""
    proc.starts(7, at=100)
    (tmp_path / "run/seccomp-shim").rmdir()
    with pytest.raises(FileNotFoundError):
        proc.memory.keep("")
