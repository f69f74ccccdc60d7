"""Runs: what they change, what they keep, what they leave alone, and how they are rolled back."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim.discovery.patching import patching
from shim.errors import ShimError
from shim.host.untrusted_files import PathWalk
from shim.transaction import runs, store
from shim.transaction.runs import DRAFT
from shim.transaction.staged import Staged
from support import need
from support.fleet import DENYING, NEW, NEW_DATA, OTHER, Host, identity, overriding
from support.profiles import texts
from support.resources import streams


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a host without anything."""
    return Host(tmp_path)


def logged(host: Host) -> list[dict[str, Any]]:
    """Return the lines of the audit log."""
    return [json.loads(line) for line in Path(host.log).open(encoding="utf-8")]


def journals(host: Host) -> list[runs.Run]:
    """Return the runs that the journals tell of."""
    with store.opened(host.state) as opened:
        return runs.listed(opened)


def test_patched_and_rolled_back(host: Host) -> None:
    """A run changes every file and its rollback restores them; both are in journal and log."""
    files = host.profiles(3)
    before = host.contents()
    first = host.patch()
    assert [each.what for each in first.results] == ["done"] * 3
    patched = host.contents()
    assert all(b"uretprobe" in data for data in patched.values())
    assert host.patch().results == []
    second = host.rollback(first.run)
    assert host.contents() == before
    host.rollback()
    assert host.contents() == patched
    told = journals(host)
    assert [(run.kind, run.of, run.ended) for run in told] == [
        ("patch", "", "done"),
        ("patch", "", "done"),
        ("rollback", first.run, "done"),
        ("rollback", second.run, "done"),
    ]
    assert [len(run.entries) for run in told] == [3, 0, 3, 3]
    events = [(line["event"], line["run"]) for line in logged(host)]
    assert events[:6] == [("patch", first.run)] * 6
    assert events[6:9] == [("rollback", second.run)] * 3
    assert {line["profile"] for line in logged(host)} == {str(path) for path in files}


def test_a_new_file_is_made_and_removed(host: Host) -> None:
    """What was not there is made for everybody to read, and rolled back is not there; and again."""
    first = host.run(overriding(host))
    assert [each.what for each in first.results] == ["done"]
    assert host.contents() == {NEW: NEW_DATA}
    info = (host.root / NEW).stat()
    assert (info.st_mode & 0o777, info.st_nlink, info.st_uid) == (0o644, 1, os.geteuid())
    assert host.rollback().count("done") == 1
    assert host.contents() == {}
    host.rollback()
    assert host.contents() == {NEW: NEW_DATA}


def test_a_new_file_replaces_nothing(host: Host) -> None:
    """Where somebody was faster, at the plan or at the last moment, his file stays."""
    plan = overriding(host)
    host.write(NEW, "theirs")
    outcome = host.run(plan)
    assert [(each.what, each.reason) for each in outcome.results] == [
        ("skipped", "somebody else has made it since the plan was made")
    ]
    (host.root / NEW).unlink()
    staged = Staged(0, plan.changes[0], "run", PathWalk())
    staged.write(NEW_DATA)
    host.write(NEW, "theirs")
    with pytest.raises(FileExistsError):
        staged.rename()
    staged.discard()
    staged.close()
    assert host.contents() == {NEW: b"theirs"}


def test_a_new_file_that_was_changed_since_stays(host: Host) -> None:
    """What somebody has written into it since is not removed but by force."""
    run = host.run(overriding(host)).run
    host.write(NEW, "theirs")
    assert host.rollback(run).results == []
    assert host.contents() == {NEW: b"theirs"}
    assert host.rollback(run, force=True).count("done") == 1
    assert host.contents() == {}


def test_one_backup_for_one_content(host: Host) -> None:
    """Backups go by content: files that are alike have one, under its checksum."""
    host.profiles(5)
    host.write("etc/docker/other.json", OTHER)
    host.patch()
    kept = [path for path in Path(host.state, "backups").rglob("*") if path.is_file()]
    assert {path.name for path in kept} == {store.checksum(DENYING), store.checksum(OTHER)}
    assert {path.read_bytes() for path in kept} == {DENYING, OTHER}


def test_what_the_file_is_stays(host: Host) -> None:
    """Owner, mode, attributes and security labels survive, and no default list is taken on."""
    need.root()
    path, plain = host.profiles(2)
    os.chown(path, 12345, 54321)
    path.chmod(0o4751)
    os.setxattr(path, "user.note", b"mine")
    os.setxattr(path, "security.label", b"a label such as SELinux's")
    default = [(1, 6, -1), (2, 7, 1000), (4, 4, -1), (16, 7, -1), (32, 0, -1)]
    acl = b"\2\0\0\0" + b"".join(
        tag.to_bytes(2, "little")
        + rights.to_bytes(2, "little")
        + who.to_bytes(4, "little", signed=True)
        for tag, rights, who in default
    )
    os.setxattr(plain.parent, "system.posix_acl_default", acl)
    kept = [identity(each) for each in (path, plain)]
    host.patch()
    assert b"uretprobe" in path.read_bytes()
    assert [identity(each) for each in (path, plain)] == kept
    host.rollback()
    assert [identity(each) for each in (path, plain)] == kept


def test_link_stays_a_link(host: Host) -> None:
    """A symbolic link is followed inside of the root, and its target changed once."""
    path = host.write("opt/real/profile.json")
    link = host.root / "etc/docker/link.json"
    link.parent.mkdir(parents=True)
    link.symlink_to("/opt/real/profile.json")
    outcome = host.patch("/opt/real/profile.json")
    assert [each.change.path for each in outcome.results] == [str(path)]
    assert link.is_symlink()
    assert b"uretprobe" in path.read_bytes()


@pytest.mark.parametrize("change", ["content", "replaced", "locked", "gone", "link", "folder"])
def test_changed_since_the_plan(host: Host, change: str) -> None:
    """A file that somebody else has been at is left as he left it, and the others are changed."""
    mine, other = host.profiles(2)
    plan = patching(host.survey())
    holder = os.open(mine, os.O_RDONLY)
    if change == "content":
        mine.write_bytes(OTHER)
    elif change == "replaced":
        os.replace(host.write("new", DENYING + b"\n"), mine)
    elif change == "locked":
        fcntl.flock(holder, fcntl.LOCK_EX)
    else:
        mine.unlink()
    if change == "link":
        mine.symlink_to(other)
    elif change == "folder":
        mine.mkdir()
    before = host.contents()
    outcome = host.run(plan)
    os.close(holder)
    what = "skipped" if change in ("content", "replaced", "locked", "folder") else "failed"
    assert sorted(each.what for each in outcome.results) == ["done", what]
    after = host.contents()
    name = str(mine.relative_to(host.root))
    if change != "link":
        assert after.get(name) == before.get(name)
    assert b"uretprobe" in other.read_bytes()
    assert mine.is_symlink() is (change == "link")


def test_only_a_named_run_of_another_user_is_rolled_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two who share a state each rolls back runs of his own; the other's is refused by name."""
    need.root()
    (path,) = host.profiles(1)
    monkeypatch.setenv("SUDO_USER", "alice")
    hers = host.patch().run
    monkeypatch.setenv("SUDO_USER", "bob")
    for files in ([], [str(path)]):
        with pytest.raises(ShimError, match=f"that of alice .--id {hers} rolls it back"):
            host.rollback(files=files)
    second = host.write("etc/docker/second.json")
    host.patch()
    host.rollback()
    assert (b"uretprobe" in path.read_bytes(), second.read_bytes()) == (True, DENYING)
    assert [run.by for run in journals(host)] == ["alice", "bob", "bob"]
    host.rollback(hers)
    assert path.read_bytes() == DENYING


def test_rollback_leaves_what_was_changed_since(host: Host) -> None:
    """What was changed after a run is rolled back by force only, and is then a backup itself."""
    mine, other = host.profiles(2)
    host.patch()
    mine.write_bytes(OTHER)
    assert [each.change.path for each in host.rollback().results] == [str(other)]
    assert mine.read_bytes() == OTHER
    host.rollback("1", force=True)
    assert mine.read_bytes() == other.read_bytes() == DENYING
    host.rollback()
    assert mine.read_bytes() == OTHER


def test_rollback_of_certain_files(host: Host) -> None:
    """Only the named files are rolled back; one that no run has changed is an error."""
    mine, other = host.profiles(2)
    host.patch()
    host.rollback(files=[str(mine)])
    assert mine.read_bytes() == DENYING
    assert b"uretprobe" in other.read_bytes()
    with pytest.raises(ShimError, match="no run has changed it"):
        host.rollback(files=["/etc/hosts"])
    with pytest.raises(ShimError, match="no such run"):
        host.rollback("99")


def test_damaged_backup(host: Host) -> None:
    """A backup whose content is not what its name says is never written anywhere."""
    [mine] = host.profiles(1)
    host.patch()
    [backup] = [path for path in Path(host.state, "backups").rglob("*") if path.is_file()]
    backup.write_bytes(DENYING[:-1])
    before = host.contents()
    assert host.rollback().results == []
    assert host.contents() == before
    mine.write_bytes(DENYING)
    host.patch()  # finds the backup damaged and makes it anew
    assert backup.read_bytes() == DENYING


def test_unlogged_is_undone(host: Host) -> None:
    """Where the audit log cannot be written nothing is changed and no draft stays."""
    host.profiles(20)
    before = host.contents()
    Path(host.log).symlink_to("nowhere")
    with pytest.raises(ShimError, match="cannot log"):
        host.patch()
    assert host.contents() == before
    [run] = journals(host)
    assert run.ended == "stopped"
    assert {entry.state for entry in run.entries.values()} == {"old"}


def test_one_run_at_a_time(host: Host) -> None:
    """A second run is refused while the first is at work."""
    host.profiles(1)
    with store.opened(host.state), pytest.raises(ShimError, match="is at work"):
        host.patch()
    assert len(host.patch().results) == 1


RACE = """
import sys
import time
from pathlib import Path
sys.path.insert(0, "tests")
from support.fleet import Host
from shim.errors import ShimError
host = Host(Path(sys.argv[1]))
while True:
    try:
        host.patch()
        break
    except ShimError as error:
        if "at work" not in str(error):
            raise
        time.sleep(0.02)
"""


def test_runs_at_once(host: Host) -> None:
    """Several that start at once come one after the other: every file is changed once."""
    host.profiles(40)
    command = [sys.executable, "-c", RACE, str(host.folder)]
    racers = [subprocess.Popen(command) for _ in range(4)]
    assert [racer.wait() for racer in racers] == [0] * 4
    assert sum(len(run.entries) for run in journals(host)) == 40
    assert len(logged(host)) == 80


def test_read_only(host: Host) -> None:
    """On a read-only file system each file is a failure of its own, others are changed."""
    need.root()
    mine = host.write("etc/docker/mine.json")
    [other] = host.profiles(1)
    subprocess.run(["mount", "--bind", mine.parent, mine.parent], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", mine.parent], check=True)
        outcome = host.patch()
    finally:
        subprocess.run(["umount", mine.parent], check=True)
    assert {each.change.path: each.what for each in outcome.results} == {
        str(mine): "failed",
        str(other): "done",
    }
    reasons = [each.reason for each in outcome.results if each.what == "failed"]
    assert reasons == [os.strerror(errno.EROFS)]
    assert mine.read_bytes() == DENYING


@pytest.mark.parametrize("place", ["root", "state"])
@pytest.mark.parametrize("room", [0, 4, 64, 128])
def test_disk_full(tmp_path: Path, place: str, room: int) -> None:
    """Where the disk fills up each file is whole, no draft stays, and room makes it go on."""
    need.root()
    small = tmp_path / place
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", small], check=True)
    try:
        host = Host(tmp_path)
        host.profiles(30)
        before = host.contents()
        ballast = small / "ballast"
        info = os.statvfs(small)
        ballast.write_bytes(b"x" * max(0, info.f_bavail * info.f_bsize - room * 1024))
        try:
            done = {each.change.path for each in host.patch().results if each.what == "done"}
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - either way is right
            done = set()
        seen = host.contents()
        seen.pop("ballast", None)
        assert not [name for name in seen if DRAFT in name]
        changed = {name for name in before if seen[name] != before[name]}
        assert all(b"uretprobe" in seen[name] for name in changed)
        if not (place == "state" and changed and not done):
            assert {str(host.root / name) for name in changed} == done
        ballast.unlink()
        with store.opened(host.state) as opened:
            runs.recover(opened)
        host.patch()
        assert all(b"uretprobe" in data for data in host.contents().values())
        assert all(run.ended for run in journals(host))
    finally:
        subprocess.run(["umount", small], check=True)


@settings(max_examples=40, deadline=None)
@given(st.lists(texts | streams, min_size=1, max_size=4))
def test_any_profile_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str]
) -> None:
    """Patch then rollback gives any file back byte for byte; patch twice equals once."""
    host = Host(tmp_path_factory.mktemp("host"))
    for index, text in enumerate(documents):
        host.write(f"srv/{index}.yaml", text)
    before = host.contents()
    first = host.patch("/srv")
    once = host.contents()
    assert host.patch("/srv").results == []
    assert host.contents() == once
    if first.results:
        host.rollback(first.run)
    assert host.contents() == before
