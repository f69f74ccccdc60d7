"""Killed at any system call: each file is whole, old or new, and the next run knows which."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shim.discovery.patching import patching
from shim.transaction import runs, store
from shim.transaction.plan import Plan
from shim.transaction.runs import DRAFT
from support import need
from support.fleet import NEW, NEW_DATA, OTHER, Host, identity, overriding

Step = Callable[[Host], Callable[[], object]]
Contents = dict[str, bytes]
Plans = dict[frozenset[tuple[str, bytes]], Plan]
MODES = (0o644, 0o600, 0o440, 0o4755)


def patching_it(host: Host) -> Callable[[], object]:
    """Patch everything."""
    plan = patching(host.survey())
    return lambda: host.run(plan)


def taking_it_back(host: Host) -> Callable[[], object]:
    """Roll back what a run has patched."""
    host.patch()
    return host.rollback


def recovering(host: Host) -> Callable[[], object]:
    """Settle what a killed run has left."""
    assert killed(patching_it(host), "renameat", 2)  # a file, the next

    def recover() -> None:
        with store.opened(host.state) as opened:
            runs.recover(opened)

    return recover


def traced(step: Callable[[], object], *options: str) -> int:
    """Run ``step`` in a process under strace with ``options``; give its wait status."""
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        step()
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    command = ["strace", "-qq", "-p", str(pid), *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as strace:
        while b"TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_bytes():
            assert strace.poll() is None
            time.sleep(0.001)
        os.kill(pid, signal.SIGCONT)
        return os.waitpid(pid, 0)[1]


def killed(step: Callable[[], object], call: str, number: int) -> bool:
    """Run ``step`` in a process that dies as it enters ``call`` for the time ``number``.

    Tells whether it came that far.
    """
    inject = f"inject={call}:signal=KILL:when={number}"
    status = traced(step, "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def points(step: Callable[[], object], log: Path) -> list[tuple[str, int]]:
    """Return every system call that ``step`` makes: its name, and the how manieth of the name."""
    assert traced(step, "-o", str(log)) == 0
    names = [line.partition("(")[0] for line in log.read_text().splitlines() if "(" in line]
    counts: dict[str, int] = {}
    found = []
    for name in names:
        if name.isidentifier() and name != "exit_group":
            counts[name] = counts.get(name, 0) + 1
            found.append((name, counts[name]))
    return found


def made(folder: Path, count: int) -> Host:
    """Make a host with ``count`` profiles of different modes, one behind a link."""
    host = Host(folder)
    for index, path in enumerate(host.profiles(count)):
        if index % 3 == 1:
            path.write_bytes(OTHER)
        os.setxattr(path, "user.note", str(index).encode())
        path.chmod(MODES[index % len(MODES)])
    link = host.root / "etc/docker/seccomp.json"
    link.parent.mkdir(parents=True)
    link.symlink_to("/var/lib/kubelet/seccomp/0.json")
    return host


def sound(host: Host, old: Contents, new: Contents, kept: object, plans: Plans) -> None:
    """See that nothing is lost, that the journal is right, and that all can be rolled back.

    A new run then brings all files to where they should be. Its plan is made from what the files
    hold alone, and there are few ways in which a kill leaves them: ``plans`` has those made before.
    """
    seen = host.contents()
    names = set(old)
    assert {name for name in seen if DRAFT not in name} == names
    for name in names:
        assert seen[name] in (old[name], new[name]), name
    assert identities(host) == kept
    with store.opened(host.state) as opened:
        runs.recover(opened)
        left = host.contents()
        assert left == {name: seen[name] for name in names}
        known = runs.listed(opened)
        assert all(run.ended for run in known)
        latest: dict[str, runs.Entry] = {}
        for run in known:
            latest |= {each.file: each for each in run.entries.values() if each.state != "old"}
            for entry in run.entries.values():
                if entry.state == "new":
                    opened.read_backup(entry.before)
        for name in names:
            last = latest.get(str(host.root / name))
            assert last is None or store.checksum(seen[name]) == last.after
        assert not [name for name in os.listdir(opened.backups) if name.startswith("new-")]
    what = frozenset(left.items())
    if what not in plans:
        plans[what] = patching(host.survey())
    host.run(plans[what])
    assert host.contents() == new
    assert identities(host) == kept


def identities(host: Host) -> dict[str, object]:
    """Return what must be kept of every file."""
    return {str(p): identity(p) for p in sorted(host.root.rglob("*")) if DRAFT not in p.name}


def swept(folder: Path, step: Step, count: int, stride: int) -> int:
    """Kill ``step`` at every ``stride``-th of its system calls; tell how often it was killed.

    All happens to one host, which is as the step finds it again before each kill.
    """
    need.program("strace")
    reference = made(folder / "reference", count)
    old = reference.contents()
    reference.patch()
    new = reference.contents()
    assert old != new
    host = made(folder / "host", count)
    kept = identities(host)
    work = step(host)
    shutil.copytree(host.folder, folder / "found", symlinks=True)
    calls = points(work, folder / "log")
    assert {"openat", "write", "fdatasync"} <= {name for name, _ in calls}
    plans: Plans = {}
    kills = 0
    for call, number in calls[::stride]:
        shutil.rmtree(host.folder)
        shutil.copytree(folder / "found", host.folder, symlinks=True)
        kills += killed(work, call, number)
        sound(host, old, new, kept, plans)
    return kills


def making_it(host: Host) -> Callable[[], object]:
    """Make a file that overrides another."""
    plan = overriding(host)
    return lambda: host.run(plan)


def removing_it(host: Host) -> Callable[[], object]:
    """Roll back a run that has made a file."""
    host.run(overriding(host))
    return host.rollback


@pytest.mark.parametrize("step", [making_it, removing_it])
@pytest.mark.parametrize(
    "stride", [11, pytest.param(1, marks=pytest.mark.slow)], ids=["sample", "all"]
)
def test_a_new_file_is_whole_or_not_there(tmp_path: Path, step: Step, stride: int) -> None:
    """Killed while it is made or removed, the journal knows which; a rollback leaves nothing."""
    need.program("strace")
    calls = points(step(Host(tmp_path / "traced")), tmp_path / "log")
    kills = 0
    for index, (call, number) in enumerate(calls[::stride]):
        host = Host(tmp_path / str(index))
        kills += killed(step(host), call, number)
        with store.opened(host.state) as opened:
            runs.recover(opened)
            last = [entry for run in runs.listed(opened) for entry in run.entries.values()]
        there = bool(host.contents())
        assert host.contents() == ({NEW: NEW_DATA} if there else {})
        states = [each.state for each in last if each.state != "old"]
        assert len(states) % 2 == there, (call, number)
        if there:
            host.rollback(files=[str(host.root / NEW)])
        assert host.contents() == {}
    assert kills > 3


CASES = [
    pytest.param(patching_it, 4, id="few files, each flushed"),
    pytest.param(patching_it, 12, id="many files, flushed together"),
    pytest.param(taking_it_back, 4, id="rollback"),
]


@pytest.mark.parametrize(("step", "count"), CASES)
def test_killed_now_and_then(tmp_path: Path, step: Step, count: int) -> None:
    """A sample of the sweep below: enough to notice a step that lost its order."""
    assert swept(tmp_path, step, count, 17) > 3


def test_killed_while_it_recovers(tmp_path: Path) -> None:
    """A recovery that is killed is made up for by the next."""
    assert swept(tmp_path, recovering, 4, 5) > 3


def swept_all(folder: Path, stride: int) -> int:
    """Kill runs, a rollback and a recovery at every ``stride``-th call; tell how often."""
    count = swept(folder / "recovery", recovering, 4, stride)
    for index, (step, files) in enumerate(
        [(patching_it, 4), (patching_it, 20), (taking_it_back, 12)]
    ):
        count += swept(folder / str(index), step, files, stride)
    print(f"{count} kills")
    return count


@pytest.mark.slow
def test_killed_at_every_third_call(tmp_path: Path) -> None:
    """A sample of the sweep below, the same from one run to the next: each third system call."""
    assert swept_all(tmp_path, 3) > 1000


@pytest.mark.sweep
def test_killed_at_every_call(tmp_path: Path) -> None:
    """Over three thousand runs, killed at each system call that they make: no file suffers."""
    assert swept_all(tmp_path, 1) > 3000
