"""The audit log: one schema, whole lines, no forgery."""

import errno
import json
import multiprocessing
import os
import subprocess
import tempfile
import unittest.mock
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shim import log, logread
from shim.errors import ShimError
from support import need

FIELDS = st.dictionaries(
    st.text(min_size=1).filter(lambda key: key not in {"time", "level", "event", "log"}),
    st.one_of(st.text(), st.integers(), st.booleans(), st.none()),
)


@given(st.text("ab\n").map(str.encode), st.integers(1, 16))
def test_lines_are_read_from_the_end(text: bytes, size: int) -> None:
    """However a log is cut into what is read at once, its lines come whole, the newest first."""
    with (
        tempfile.TemporaryFile() as file,
        unittest.mock.patch.object(logread, "_CHUNK", size),
    ):
        file.write(text)
        file.flush()
        assert list(logread.backwards(file, 1 << 20)) == text.split(b"\n")[::-1]


@given(FIELDS)
def test_both_renderers_write_the_same_line(fields: dict[str, object]) -> None:
    """The start path's own renderer and structlog differ in nothing but the time."""
    lines: list[bytes] = []

    class Sink:
        def msg(self, line: str) -> None:
            lines.append(line.encode() + b"\n")

        info = msg

    log.logger(Sink()).info("adjusted", **{f"x{key}": value for key, value in fields.items()})
    lines.append(
        log.render("info", "adjusted", {f"x{key}": value for key, value in fields.items()})
    )
    ours, theirs = (json.loads(line) for line in lines)
    assert list(ours) == list(theirs)
    assert len(ours.pop("time")) == len(theirs.pop("time"))
    assert ours == theirs


@given(st.text())
def test_no_name_can_forge_a_line(name: str) -> None:
    """Whatever a container is called, its line is one line of printable ASCII and reads back."""
    line = log.render("info", "adjusted", {"container": name})
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert all(byte == 10 or 32 <= byte < 128 for byte in line)
    assert json.loads(line)["container"] == name


@given(st.integers(0, 9000), st.sampled_from(["x", "\0", "\U0001f600"]))
@example(16 << 20, "x")
def test_no_text_makes_a_line_long(size: int, letter: str) -> None:
    """Words of others are cut, and it is told of how many; other fields stay as they are."""
    text = letter * size
    fields: dict[str, object] = {"reason": text, "state": {"uretprobe": text}, "stops": 3}
    lines: list[bytes] = []

    class Sink:
        def msg(self, line: str) -> None:
            lines.append(line.encode() + b"\n")

        info = msg

    log.logger(Sink()).info("failed", **fields)
    for each in (log.render("info", "failed", fields), *lines):
        assert len(each) < 2 * 12 * 4200
        found = json.loads(each)
        assert found["stops"] == 3
        for cut in (found["reason"], found["state"]["uretprobe"]):
            assert cut[:4096] == text[:4096]
            assert cut[4096:] == ("" if size <= 4096 else f"... ({size} characters)")


def _write_many(path: str, writer: int) -> None:
    for number in range(200):
        filler = "x" * (number * 37 % 9000)
        line = log.render("info", "test", {"writer": writer, "n": number, "filler": filler})
        log.append(line, path)


def test_concurrent_writers_never_tear_a_line(tmp_path: Path) -> None:
    """Eight processes writing lines of up to 9000 bytes leave every line whole."""
    path = str(tmp_path / "audit.jsonl")
    writers = [multiprocessing.Process(target=_write_many, args=(path, n)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    seen = [
        (doc["writer"], doc["n"]) for doc in map(json.loads, Path(path).read_text().splitlines())
    ]
    assert sorted(seen) == [(writer, n) for writer in range(8) for n in range(200)]


def _fill(line: bytes, path: str) -> None:
    for _ in range(100):
        log.append(line, path)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    """On a file system that fills up, what was written stays whole and the failure is told."""
    need.root()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], check=True)
    try:
        path = str(tmp_path / "audit.jsonl")
        line = log.render("info", "test", {"filler": "x" * 3000})
        with pytest.raises(OSError, match="No space left") as failure:
            _fill(line, path)
        assert failure.value.errno == errno.ENOSPC
        lines = Path(path).read_bytes().splitlines()
        assert len(lines) > 10
        assert all(json.loads(one) for one in lines)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_symlink_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    """A log path that is a symbolic link is refused, and its target stays untouched."""
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "audit.jsonl").symlink_to(target)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        log.append(b"{}\n", str(tmp_path / "audit.jsonl"))
    assert target.read_text() == "precious"


def test_a_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    """Recording where no directory is raises the error that a user reads, and writes nothing."""
    with pytest.raises(ShimError, match="cannot log: No such file"):
        log.record("patch", log=str(tmp_path / "none" / "audit.jsonl"))
    assert not (tmp_path / "none").exists()
