"""One line for what goes well: it is announced before, and nothing that goes wrong is left out."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shim import lightos, log, runtime_directory
from shim.config import DEFAULTS
from shim.start import repeats
from shim.start.session import Start
from support import auditlog, need
from support.containers import LET_THROUGH, real
from support.joined import Joiner
from support.wrapped import WrappedLab


def start(tmp_path: Path, **more: object) -> Start:
    """Return a start that logs into the directory."""
    return Start(DEFAULTS | {"log": str(tmp_path / "audit.jsonl")} | more)


def pending(tmp_path: Path) -> list[Path]:
    """Return what is announced there."""
    return [each for each in tmp_path.iterdir() if each.name.startswith(".pending")]


def lookers(lab: WrappedLab) -> list[str]:
    """Return the processes that look at a container of this lab."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            text = entry.read_bytes().decode(errors="replace")
            if f"{lab.folder}/config.yaml" in text and "poststart" in text:
                found.append(entry.parent.name)
    return found


def test_a_start_is_one_line(lab: WrappedLab) -> None:
    """By injection and by a program: what is looked at later and found well adds nothing."""
    with lab.container() as container:
        container.ready()
        deadline = time.monotonic() + 20
        while lookers(lab):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert container.outcomes() == LET_THROUGH
    line, *more = lab.log()
    assert more == []
    assert line["event"] == "adjusted"
    assert line["container"] == container.name
    assert not pending(lab.folder)
    assert len(lab.log_path.read_bytes()) < 750


def test_a_program_for_crun_has_its_one_proof(tmp_path: Path) -> None:
    """It is what the mechanism says; whether it was made at this start, the line tells as ever."""
    lab = WrappedLab(tmp_path, real("crun"))
    told = []
    for detail in ("full", "brief"):
        lab.configure("allow", None, f"log_detail: {detail}")
        lab.log_path.write_bytes(b"")
        with lab.container() as container:
            container.ready()
        lines = [json.loads(line) for line in lab.log_path.read_text().splitlines()]
        told += [line for line in lines if line["event"] == "adjusted"]
    full, brief = told
    assert full["mechanism"] == brief["mechanism"] == "raw-bpf"
    assert full["proof"].startswith("compiled with and without them and compared for every call")
    assert brief["proof"] == "kept"  # of the start before
    one = start(tmp_path)
    one.log("adjusted", proof=full["proof"].removesuffix(", when it was made"), after="ALLOW")
    assert "proof" not in lab.log()[-1]
    one.log("adjusted", proof="another", after="ALLOW")
    assert lab.log()[-1]["proof"] == "another"


def test_an_exec_is_one_line(joiner: Joiner) -> None:
    """Of a process that joins a container as well."""
    with joiner.joinable():
        joiner.outcomes()
    (line,) = joiner.wrapped.log()
    assert (line["event"], line["process"]) == ("adjusted", "exec")


def test_it_is_on_the_disk_before_the_change(tmp_path: Path) -> None:
    """Until the line of what was done is in the log, what is about to be done lies beside it."""
    one = start(tmp_path)
    one.log("adjusting", before="ERRNO(1)")
    (announced,) = pending(tmp_path)
    assert json.loads(announced.read_text())["before"] == "ERRNO(1)"
    assert announced.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "audit.jsonl").read_text() == ""
    one.log("adjusted", verified=True)
    assert not pending(tmp_path)
    (line,) = auditlog.lines(tmp_path / "audit.jsonl")
    assert line["event"] == "adjusted"


@pytest.mark.parametrize("event", ["failed", "left-alone", "adjusting"])
def test_anything_else_has_the_announcement_before_it(tmp_path: Path, event: str) -> None:
    """What does not go well is told whole, in its order."""
    one = start(tmp_path)
    one.log("adjusting")
    one.log(event, level="error", reason="x")
    one.log("adjusted", level="error", verified=False)
    events = [line["event"] for line in auditlog.lines(tmp_path / "audit.jsonl")]
    assert events == ["adjusting", event, "adjusted"]
    assert not pending(tmp_path)


def _dies(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        start(tmp_path).log("adjusting", container="killed")
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)


def test_what_was_announced_by_the_killed_comes_into_the_log(tmp_path: Path) -> None:
    """Once, whoever looks; what a living process has announced stays where it is."""
    _dies(tmp_path)
    living = start(tmp_path)
    living.log("adjusting", container="living")
    assert len(pending(tmp_path)) == 2
    assert log.settle(living.path) == 1
    assert log.settle(living.path) == 0
    (line,) = auditlog.lines(tmp_path / "audit.jsonl")
    assert (line["event"], line["container"]) == ("adjusting", "killed")
    assert len(pending(tmp_path)) == 1
    living.log("adjusted", verified=True)


def test_the_next_start_settles_it(runc: WrappedLab) -> None:
    """Nobody need look: the next container that is adjusted puts it into the log."""
    _dies(runc.folder)
    with runc.container() as container:
        container.ready()
    deadline = time.monotonic() + 5
    while pending(runc.folder):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lines = [json.loads(line) for line in runc.log_path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["adjusted", "adjusting"]


class TooLateError(Exception):
    """What the limit of a test raises."""


@pytest.fixture
def limited() -> Iterator[Callable[[float], object]]:
    """Return what sets a limit to the test, as a tracer has one."""

    def too_late(_number: int, _frame: object) -> None:
        raise TooLateError

    before = signal.signal(signal.SIGALRM, too_late)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def quick_reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have each announcement locked as soon as it is made, by who may read the directory."""
    opened, locks = os.open, []

    def locked_at_once(path: str, *more: Any, **options: Any) -> int:
        fd = opened(path, *more, **options)
        if ".pending-" in str(path):
            locks.append(opened(path, os.O_RDONLY))
            fcntl.flock(locks[-1], fcntl.LOCK_EX)
        return fd

    monkeypatch.setattr(lightos, "open", locked_at_once)
    yield
    assert locks
    for each in locks:
        os.close(each)


@pytest.mark.usefixtures("quick_reader")
def test_a_reader_that_locks_an_announcement_keeps_nobody_waiting(
    tmp_path: Path, limited: Callable[[float], object]
) -> None:
    """What is to be done goes into the log itself then, and the start goes on."""
    limited(10)
    one = start(tmp_path)
    one.log("adjusting")
    assert not pending(tmp_path)
    one.log("adjusted", verified=True)
    events = [line["event"] for line in auditlog.lines(tmp_path / "audit.jsonl")]
    assert events == ["adjusting", "adjusted"]


@pytest.mark.usefixtures("quick_reader")
def test_a_limit_that_is_reached_leaves_no_announcement(
    tmp_path: Path, limited: Callable[[float], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends a start from without, while it announces, does not have it told as begun."""
    monkeypatch.setattr(log, "_LOCK_SECONDS", 10)
    limited(0.05)
    with pytest.raises(TooLateError):
        start(tmp_path).log("adjusting")
    assert not pending(tmp_path)


def test_a_reader_keeps_no_announcement_of_the_killed_from_the_log(tmp_path: Path) -> None:
    """A lock says that its writer lives only as long as any writer is at work."""
    _dies(tmp_path)
    (announced,) = pending(tmp_path)
    path = str(tmp_path / "audit.jsonl")
    with announced.open() as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        assert log.settle(path) == 0
        os.utime(announced, (0, time.time() - 601))
        assert log.settle(path) == 1
    assert [line["container"] for line in auditlog.lines(tmp_path / "audit.jsonl")] == ["killed"]


def test_what_others_plant_is_no_announcement(tmp_path: Path) -> None:
    """In a directory where others may write, root puts nobody's words into its log."""
    need.root()
    forged = log.render("error", "failed", {"container": "forged"})
    foreign, link, target = (tmp_path / name for name in ("foreign", "link", "target"))
    for each in (foreign, target):
        each.write_bytes(forged)
        each.chmod(0o600)
    os.chown(foreign, 65534, 65534)
    foreign.rename(tmp_path / ".pending-audit.jsonl-1-a")
    link.symlink_to(target)
    link.rename(tmp_path / ".pending-audit.jsonl-1-b")
    os.link(target, tmp_path / ".pending-audit.jsonl-1-c")
    os.mkfifo(tmp_path / ".pending-audit.jsonl-1-d")
    assert log.settle(str(tmp_path / "audit.jsonl")) == 0
    assert not (tmp_path / "audit.jsonl").exists()


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_a_full_disk_keeps_it_from_being_done(runc: WrappedLab, on_error: str) -> None:
    """Neither the log nor the announcement has room: nothing is adjusted, or the start refused."""
    disk = runc.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)], check=True)
    try:
        (disk / "audit.jsonl").touch()
        runc.configure(on_error, disk / "audit.jsonl")
        (disk / "filler").write_bytes(b"x" * (16 << 10))
        with runc.container() as container:
            if on_error == "allow":
                container.ready()
                assert container.outcomes() != LET_THROUGH
            else:
                container.process.communicate()
                assert container.process.returncode != 0
        assert (disk / "audit.jsonl").read_bytes() == b""
        assert not pending(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_what_only_the_announcement_has_room_for_is_told_later(tmp_path: Path) -> None:
    """It is on the disk, so it may be done; the log gets it as soon as it has room."""
    need.root()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(tmp_path)], check=True)
    try:
        (tmp_path / "filler").write_bytes(b"x" * (12 << 10))
        one = start(tmp_path)
        one.log("adjusting")
        one.log("adjusted", verified=True)
        assert (tmp_path / "audit.jsonl").read_bytes() == b""
        (tmp_path / "filler").unlink()
        assert [line["event"] for line in auditlog.lines(tmp_path / "audit.jsonl")] == ["adjusting"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# --- what is counted ---------------------------------------------------------------------------


@pytest.fixture
def joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Return an exec whose repeats are counted, in a container of its own."""
    need.root()
    monkeypatch.setattr(runtime_directory, "ROOTS", str(tmp_path / "run"))
    one = start(tmp_path, log_repeats="count")
    one.facts |= {"process": "exec", "container": str(tmp_path), "syscall": "uretprobe"}
    return one


def _adjust(one: Start, **more: object) -> None:
    one.log("adjusting")
    facts: dict[str, Any] = {"verified": True, "duration_ms": time.monotonic(), "stops": 3, **more}
    one.log("adjusted", **facts)


def events(tmp_path: Path) -> list[tuple[str, int | None]]:
    """Return the lines' events, and how many repeats they tell of."""
    lines = auditlog.lines(tmp_path / "audit.jsonl")
    return [(line["event"], line.get("repeats")) for line in lines]


def test_a_health_check_is_counted(joined: Start, tmp_path: Path) -> None:
    """The first is written, then a thousand are one line, and none of them waits beside the log."""
    for _ in range(2001):
        _adjust(joined)
    assert events(tmp_path) == [("adjusted", None), ("repeated", 1000), ("repeated", 1000)]
    assert not pending(tmp_path)


def test_one_that_differs_is_written(joined: Start, tmp_path: Path) -> None:
    """Whatever it is: another filter, or one that is not known to be well."""
    for more in ({}, {}, {"length_after": 1}, {"length_after": 1}, {"verified": None}):
        _adjust(joined, **more)
    assert events(tmp_path) == [
        ("adjusted", None), ("repeated", 1), ("adjusted", None), ("adjusted", None)
    ]  # fmt: skip


def test_after_an_hour_it_is_told(
    joined: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a container that has ended, by the first exec of another one, or by who asks."""
    for _ in range(5):
        _adjust(joined)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3601)
    joined.facts["container"] = f"{tmp_path}/other"
    _adjust(joined)
    assert events(tmp_path) == [("adjusted", None), ("repeated", 4), ("adjusted", None)]
    _adjust(joined)
    repeats.settle(joined.path, None)
    assert events(tmp_path)[3:] == [("repeated", 1)]


def test_no_exec_looks_at_all_numbers_that_others_left(
    joined: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at some, the next one at others; who asks for all has all."""
    place = tmp_path / "run" / "repeats"
    place.mkdir(mode=0o700, parents=True)
    told = {"kind": "x", "count": 7, "since": 0, "log": joined.path, "told": {"process": "exec"}}
    for number in range(200):
        (place / f"{number}").write_text(json.dumps(told))
    _adjust(joined)
    assert 40 < len(events(tmp_path)) <= 51
    clock = iter(range(0, 10**6, 50))
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(clock))
    for number in range(20):
        joined.facts["container"] = f"{tmp_path}/{number}"
        _adjust(joined)
    assert events(tmp_path).count(("repeated", 7)) == 200


def test_real_execs_are_counted(runc: WrappedLab, tmp_path: Path) -> None:
    """Joined by runc ten times, a container has one line, and all are let through."""
    (tmp_path / "joiner").mkdir()
    joiner = Joiner(tmp_path / "joiner", runc.real)
    joiner.wrapped.configure("allow", None, "log_repeats: count")
    with joiner.joinable():
        for _ in range(4):
            assert joiner.outcomes() == LET_THROUGH
    (line,) = joiner.wrapped.log()
    assert line["event"] == "adjusted"
    repeats.settle(str(joiner.wrapped.log_path), None)
    assert joiner.wrapped.log()[1]["repeats"] == 3
