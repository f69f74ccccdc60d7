"""Files replaced by the verb patch: logged first, in a run that can be rolled back."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.patching import ALWAYS, BEFORE, Run, logged, refused
from support import need
from support.profiles import FORMATS, LAYOUTS


@pytest.mark.parametrize("name", FORMATS)
def test_in_place(shim: Run, tmp_path: Path, log: Path, name: str) -> None:
    """The file is replaced, nothing else appears beside it, and each call has its line of log."""
    path = tmp_path / "p.json"
    path.write_text(LAYOUTS["two spaces"](FORMATS[name]))
    before = path.read_bytes()
    expected = shim(*ALWAYS, path.name).stdout
    result = shim(*ALWAYS, "--in-place", path.name)
    assert (result.returncode, result.stdout) == (0, b"")
    assert path.read_bytes() == expected
    assert sorted(tmp_path.iterdir()) == [log, path]
    lines = logged(log)
    assert [line["syscall"] for line in lines] == ["uretprobe", "uprobe"]
    for line in lines:
        assert line["event"] == "patch"
        assert line["mechanism"] == "profile"
        assert line["profile"] == str(path)
        assert (line["before"], line["after"]) == ("denied-by-default", "allowed")
        assert line["sha256_before"] == hashlib.sha256(before).hexdigest()
        assert line["sha256_after"] == hashlib.sha256(expected).hexdigest()


def test_in_place_is_a_run_that_rollback_undoes(
    shim: Run, profile: Path, tmp_path: Path, log: Path
) -> None:
    """Several files are one run; each of them, or all, become byte for byte what they were."""
    second = tmp_path / "second.json"
    shutil.copy(profile, second)
    done = shim(*ALWAYS, "-i", "p.json", "second.json", "./p.json")
    assert b"seccomp-shim rollback --id 1 " in done.stderr
    [run] = {line["run"] for line in logged(log)}
    patched = profile.read_text()
    for words in ("p.json",), ("--id", "1"):
        command = [sys.executable, "-m", "shim", "rollback", "--state", str(log / "state"), *words]
        settings = f'mount --bind "{log}" /var/log/seccomp-shim && exec "$@"'
        if os.geteuid() == 0:
            settings = f"mount -t tmpfs none /var/log && mkdir /var/log/seccomp-shim && {settings}"
            command = ["unshare", "-m", "sh", "-c", settings, "sh", *command]
        environment = {**os.environ, "XDG_STATE_HOME": str(log)}
        subprocess.run(command, check=True, cwd=tmp_path, env=environment)
        assert profile.read_text() == BEFORE
        assert second.read_text() == (patched if words == ("p.json",) else BEFORE)
    assert [line["of"] for line in logged(log) if line["event"] == "rollback"] == [run, run]


def test_in_place_twice(shim: Run, profile: Path, log: Path) -> None:
    """Where nothing is to be done the file is not even written, and nothing is logged."""
    shim(*ALWAYS, "--in-place", profile.name)
    before, lines = profile.stat(), logged(log)
    assert shim(*ALWAYS, "--in-place", profile.name).returncode == 0
    after = profile.stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert logged(log) == lines


def test_in_place_keeps_what_the_file_is(shim: Run, profile: Path, tmp_path: Path) -> None:
    """Mode, owner, attributes and a symbolic link survive the replacement."""
    link = tmp_path / "link.json"
    link.symlink_to(profile.name)
    profile.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(profile, 12345, 54321)
    os.setxattr(profile, "user.note", b"mine")
    before = profile.stat()
    assert shim(*ALWAYS, "-i", link.name).returncode == 0
    after = profile.stat()
    assert link.is_symlink()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert os.getxattr(profile, "user.note") == b"mine"


def test_unlogged_is_undone(shim: Run, profile: Path, log: Path, tmp_path: Path) -> None:
    """What cannot be logged is not done: exit status 2, the file untouched, nothing left behind."""
    for path in (log / "audit.jsonl", log / "seccomp-shim"):  # root's log, and a user's directory
        path.symlink_to("nowhere")
    line = refused(shim(*ALWAYS, "--in-place", profile.name))
    assert "audit.jsonl" in line or "seccomp-shim" in line
    assert profile.read_text() == BEFORE
    assert sorted(tmp_path.iterdir()) == [log, profile]


def test_failure_after_the_log(shim: Run, profile: Path, log: Path, tmp_path: Path) -> None:
    """A replacement that fails once it is logged gets a second line that says so."""
    need.root()
    # The kernel refuses to rename over a mount point.
    result = shim(*ALWAYS, "-i", "p.json", prepare="mount --bind p.json p.json")
    assert "p.json: Device or resource busy" in refused(result)
    assert profile.read_text() == BEFORE
    assert sorted(tmp_path.iterdir()) == [log, profile]
    assert [line["event"] for line in logged(log)] == ["patch", "patch", "patch-failed"]


def test_in_place_needs_a_file(shim: Run, tmp_path: Path) -> None:
    """What is no regular file is not replaced."""
    assert "standard input cannot be replaced" in refused(shim("-i", "-"))
    os.mkfifo(tmp_path / "pipe")
    feeder = subprocess.Popen(["sh", "-c", 'cat >"$0"', tmp_path / "pipe"], stdin=subprocess.PIPE)
    assert feeder.stdin
    feeder.stdin.write(BEFORE.encode())
    feeder.stdin.close()
    assert "pipe: is no regular file" in refused(shim(*ALWAYS, "-i", "pipe"))
    feeder.wait()
    assert (tmp_path / "pipe").is_fifo()
