"""The log is rotated by its writer: it has a limit, and nothing of it or of others is lost."""

import contextlib
import fcntl
import gzip
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from shim import log, rotation, runtime_directory
from support import need
from support.wrapped import WrappedLab

MOST = (16 << 10, 3)


def kept(log: Path) -> list[Path]:
    """Return the log and what was rotated of it, the newest first."""
    return [log, *sorted(log.parent.glob(f"{log.name}.[0-9]*"), key=_number)]


def read(path: Path) -> bytes:
    """Return what a log says, compressed or not."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def settled(log: Path) -> list[Path]:
    """Return what is kept of the log once all that was rotated is compressed."""
    deadline = time.monotonic() + 30
    while any(path.suffix != ".gz" for path in kept(log)[1:]):
        assert time.monotonic() < deadline, kept(log)
        time.sleep(0.05)
    return kept(log)


def _number(path: Path) -> int:
    return int(path.name.removesuffix(".gz").rpartition(".")[2])


def locks(path: Path) -> list[Path]:
    """Return the locks of who rotates and compresses the log at ``path``."""
    info = path.parent.stat()
    place, private = runtime_directory.directory("rotation")
    if place < 0:
        return sorted(path.parent.glob(".*ing-*"))
    os.close(place)
    return sorted(Path(private).glob(f"*-{info.st_dev:x}-{info.st_ino:x}-{path.name}"))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Yield where a log is to be, in a directory that is ours alone."""
    tmp_path.chmod(0o755)
    yield tmp_path / "audit.jsonl"
    for each in locks(tmp_path / "audit.jsonl"):
        each.unlink()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compress in this process, without the pause that lets late writers finish."""

    def compress(command: list[str]) -> None:
        rotation.compress(command[-1])
        signal.alarm(0)

    monkeypatch.setattr(rotation, "_GRACE_SECONDS", 0)
    monkeypatch.setattr(rotation, "_detach", compress)


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what was rotated uncompressed."""
    monkeypatch.setattr(rotation, "_detach", lambda _command: None)


def line(number: int, size: int = 1000) -> bytes:
    """Return a line that tells its number."""
    return log.render("info", "test", {"n": number, "filler": "x" * size})


def numbers(paths: list[Path]) -> list[int]:
    """Return the numbers of all lines."""
    return [json.loads(each)["n"] for path in paths for each in read(path).splitlines()]


def test_it_never_takes_more_than_it_may(path: Path) -> None:
    """The real compressor at work: the newest lines are there, each once, in the files allowed."""
    for number in range(100):
        log.append(line(number), str(path), MOST)
        if number == 50:
            settled(path)
    found = settled(path)
    assert len(found) <= 1 + MOST[1]
    assert all(len(read(each)) <= MOST[0] + 1200 for each in found)
    seen = numbers(found[::-1])
    assert seen == list(range(seen[0], 100))
    assert not [each for each in path.parent.iterdir() if each.name.startswith(".audit")]


@pytest.mark.usefixtures("by_hand")
def test_the_oldest_goes(path: Path) -> None:
    """As many rotated logs stay as the settings say, compressed or not."""
    for number in range(200):
        log.append(line(number), str(path), MOST)
    found = kept(path)
    assert [each.name for each in found] == [
        "audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"
    ]  # fmt: skip
    seen = numbers(found[::-1])
    assert seen == list(range(seen[0], 200))


def _write_many(path: str, writer: int) -> None:
    rotation._GRACE_SECONDS = 0
    for number in range(150):
        log.append(line(writer * 1000 + number, number * 37 % 2000), path, (32 << 10, 90))


def test_writers_side_by_side_lose_no_line(path: Path) -> None:
    """Six processes write and rotate at once: every line is there, once and whole."""
    writers = [
        multiprocessing.Process(target=_write_many, args=(str(path), writer)) for writer in range(6)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = settled(path)
    assert len(found) > 10
    expected = sorted(w * 1000 + n for w in range(6) for n in range(150))
    assert sorted(numbers(found)) == expected


KILLING = """
import os, sys
sys.path.insert(0, {packages!r})
from shim import rotation
rotation._GRACE_SECONDS = 0
rotation._detach = lambda command: rotation.compress({path!r})
count = 0
def profiler(frame, event, arg):
    global count
    if event == "c_call" and arg.__name__ in OPS:
        count += 1
        if count == {step}:
            os.kill(os.getpid(), 9)
OPS = {{"open", "link", "rename", "unlink", "write", "close", "chown", "fchmod", "fsync", "utime"}}
sys.setprofile(profiler)
rotation.rotate({path!r}, {most!r})
os._exit(0)
"""


@pytest.mark.usefixtures("at_once")
def test_killed_at_every_step_it_loses_nothing(path: Path) -> None:
    """Rotating and compressing, each step may be the last: the next one makes it good."""
    packages = str(Path(log.__file__).parent.parent)
    for step in count(1):
        for each in path.parent.iterdir():
            each.unlink()
        (path.parent / "audit.jsonl.1.gz").write_bytes(gzip.compress(line(-1)))
        path.write_bytes(b"".join(line(number) for number in range(20)))
        code = KILLING.format(packages=packages, path=str(path), step=step, most=MOST)
        child = subprocess.run([sys.executable, "-c", code], check=False).returncode
        assert path.exists(), f"step {step}: no log for the hooks' shell part"
        log.append(line(20), str(path))
        path.write_bytes(path.read_bytes() + b"".join(line(21 + n) for n in range(20)))
        assert rotation.rotate(str(path), MOST), f"step {step}"
        found = settled(path)
        assert sorted(set(numbers(found))) == list(range(-1, 41)), f"step {step}"
        assert not [each for each in path.parent.iterdir() if each.name.startswith(".audit")]
        if child == 0:
            break
        assert child == -signal.SIGKILL
    assert step > 12


@pytest.mark.usefixtures("by_hand")
def test_whoever_may_read_it_cannot_keep_it_from_being_rotated(path: Path) -> None:
    """A lock on the log itself delays a line for a moment, and no more."""
    path.write_bytes(line(0) * 20)
    with path.open() as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        log.append(line(1), str(path), MOST)
    assert kept(path)[1].read_bytes().endswith(path.read_bytes() or line(1)[-20:])
    assert [each.name for each in kept(path)] == ["audit.jsonl", "audit.jsonl.1"]


@pytest.mark.usefixtures("by_hand")
def test_whoever_may_read_the_directory_cannot_either(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on whatever is in it, as who has it mounted can take, keeps nobody from his work."""
    need.root()
    monkeypatch.setattr(rotation, "_GRACE_SECONDS", 0)
    path.write_bytes(line(0) * 20)
    assert rotation.rotate(str(path), MOST)
    path.write_bytes(line(1) * 20)
    with contextlib.ExitStack() as mine:
        for each in path.parent.iterdir():
            fcntl.flock(mine.enter_context(each.open()), fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert rotation.rotate(str(path), MOST)
        rotation.compress(str(path))
        signal.alarm(0)
    assert [each.name for each in kept(path)] == [
        "audit.jsonl", "audit.jsonl.1.gz", "audit.jsonl.2.gz"
    ]  # fmt: skip


@pytest.mark.usefixtures("by_hand")
def test_what_another_program_put_there_meanwhile_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were logrotate to give the log a number at the same time, nothing of it is overwritten."""
    path.write_bytes(line(0) * 20)
    shift = rotation._shift

    def and_another(at: int, name: str, kept: int) -> None:
        shift(at, name, kept)
        (path.parent / "audit.jsonl.1").write_bytes(line(7))

    monkeypatch.setattr(rotation, "_shift", and_another)
    assert not rotation.rotate(str(path), MOST)
    assert numbers(kept(path)[:2]) == [0] * 20 + [7]
    assert len(list(path.parent.iterdir())) == 2


def test_a_disk_without_room_for_the_compressed_one(path: Path) -> None:
    """It is not kept full by half of it: what was rotated stays as it is until there is room."""
    need.root()
    rotated = path.parent / "audit.jsonl.1"
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k,mode=755", "none", str(path.parent)]
    subprocess.run(mount, check=True)
    try:
        rotated.write_bytes(os.urandom(64 << 10))
        rotation.compress(str(path))
        signal.alarm(0)
        assert [each.name for each in path.parent.iterdir()] == ["audit.jsonl.1"]
        assert rotated.stat().st_size == 64 << 10
    finally:
        for each in locks(path):
            each.unlink()
        subprocess.run(["umount", str(path.parent)], check=True)


@pytest.mark.usefixtures("by_hand")
def test_a_line_that_comes_late_goes_to_the_log(path: Path) -> None:
    """Whoever opened the log before it was rotated writes to the new one."""
    path.write_bytes(line(0) * 20)
    original = log._lock

    def rotated_meanwhile(fd: int) -> bool:
        log._lock = original
        assert rotation.rotate(str(path), MOST)
        return original(fd)

    log._lock = rotated_meanwhile
    try:
        log.append(line(7), str(path), MOST)
    finally:
        log._lock = original
    assert numbers([path]) == [7]


@pytest.mark.parametrize("mode", [0o1777, 0o775])
def test_in_a_directory_of_others_nothing_is_renamed(path: Path, mode: int) -> None:
    """There a name may be somebody else's: the log grows, and every line is written."""
    path.parent.chmod(mode)
    planted = path.parent / "precious"
    planted.write_text("precious")
    (path.parent / "audit.jsonl.1").symlink_to(planted)
    for number in range(30):
        log.append(line(number), str(path), MOST)
    assert numbers([path]) == list(range(30))
    assert planted.read_text() == "precious"


@pytest.mark.usefixtures("at_once")
def test_a_link_in_the_place_of_a_rotated_log_is_not_followed(path: Path) -> None:
    """It is shifted and goes like any other, and what it points to stays."""
    target = path.parent.parent / f"{path.parent.name}-precious"
    target.write_text("precious")
    (path.parent / "audit.jsonl.1").symlink_to(target)
    path.write_bytes(line(0) * 20)
    assert rotation.rotate(str(path), MOST)
    assert target.read_text() == "precious"
    assert (path.parent / "audit.jsonl.2").is_symlink()


def test_mode_and_group_stay(path: Path) -> None:
    """The new log and the compressed one are whose the old one was."""
    path.write_bytes(line(0) * 20)
    group = 4 if os.geteuid() == 0 else os.getegid()  # adm
    os.chown(path, -1, group)
    path.chmod(0o640)
    assert rotation.rotate(str(path), MOST)
    for each in settled(path):
        info = each.stat()
        assert (info.st_mode & 0o7777, info.st_gid) == (0o640, group), each


def test_no_start_waits_for_the_compressor(runc: WrappedLab) -> None:
    """A container whose line fills the log is up while its log is not yet compressed.

    The runtime's pipes are closed by then: whoever reads them to their end is not kept.
    """
    runc.configure("allow", None, "log_max: 16 KB x 2")
    runc.folder.chmod(0o755)
    runc.log_path.write_bytes(line(0) * 20)
    with runc.container() as container:
        container.ready()
        deadline = time.monotonic() + 10
        while len(kept(runc.log_path)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    found = settled(runc.log_path)
    for each in locks(runc.log_path):
        each.unlink()
    assert [each.suffix for each in found] == [".jsonl", ".gz"]
    assert b'"adjusted"' in read(found[1])
