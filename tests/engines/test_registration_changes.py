"""Changes of engines' files: made all or none, recorded, rolled back."""

import errno
import fcntl
import json
import os
import resource
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shim.engines.registration import changes
from shim.engines.registration.changes import Edit, Record, edit
from shim.errors import ShimError
from support import need

OURS = b"# seccomp-shim\n"
ENTRY = {"path": "/opt/seccomp-shim/bin/seccomp-shim-runtime", "runtimeArgs": ["--real-runtime"]}


def without(_path: Path, now: bytes, _original: bytes | None) -> bytes | None:
    """Take out the line that the tests put in; nothing left: None."""
    return now.replace(OURS, b"") or None


class Place:
    """A directory with configuration, a state directory and a log."""

    def __init__(self, folder: Path) -> None:
        self.etc = folder / "etc"
        self.etc.mkdir()
        self.file = self.etc / "engine.conf"
        self.state = folder / "lib" / "shim" / "engines"
        self.log = folder / "log"

    def install(self, *edits: Edit) -> None:
        """Make the edits."""
        changes.apply("engine", edits, without, self.state, str(self.log))

    def back(self, *places: Path) -> list[Edit]:
        """Plan to undo all."""
        return changes.rolling_back("engine", places, without, self.state)

    def uninstall(self, *places: Path) -> None:
        """Undo all."""
        changes.roll_back("engine", self.back(*places), self.state, str(self.log))

    def events(self) -> list[dict[str, Any]]:
        """Return the log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return an empty place."""
    return Place(tmp_path)


def test_a_file_comes_back_byte_for_byte_with_its_mode(place: Place) -> None:
    """Uninstall gives back the bytes; the mode stays that of the file, whatever it is."""
    place.file.write_bytes(b"a = 1")
    place.file.chmod(0o640)
    place.install(edit(place.file, OURS + b"a = 1"))
    assert place.file.read_bytes() == OURS + b"a = 1"
    assert stat.S_IMODE(place.file.stat().st_mode) == 0o640
    place.uninstall()
    assert place.file.read_bytes() == b"a = 1"
    assert stat.S_IMODE(place.file.stat().st_mode) == 0o640


def test_what_was_made_is_removed_with_its_folders(place: Place) -> None:
    """Files, directories and the record that install made are gone afterwards; other files stay."""
    path = place.etc / "conf.d" / "deep" / "shim.conf"
    place.install(edit(path, OURS, 0o600))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    place.uninstall()
    assert list(place.etc.iterdir()) == []
    assert not place.state.parent.exists()


def test_a_folder_that_others_use_now_stays(place: Place) -> None:
    """A directory that install made is kept while somebody else's file is in it."""
    path = place.etc / "conf.d" / "shim.conf"
    place.install(edit(path, OURS))
    (path.parent / "theirs.conf").touch()
    place.uninstall()
    assert [each.name for each in path.parent.iterdir()] == ["theirs.conf"]


def test_only_our_entries_go_where_others_have_edited(place: Place) -> None:
    """A file that was edited since loses what is ours and keeps the edit."""
    place.file.write_bytes(b"a = 1\n")
    place.install(edit(place.file, OURS + b"a = 1\n"))
    place.file.write_bytes(OURS + b"a = 2\nb = 3\n")
    place.uninstall()
    assert place.file.read_bytes() == b"a = 2\nb = 3\n"


def test_a_second_install_keeps_the_first_original(place: Place) -> None:
    """What is given back is from before the first install, whatever a later one wrote."""
    place.file.write_bytes(b"a = 1\n")
    place.install(edit(place.file, OURS + b"a = 1\n"))
    place.install(edit(place.file, OURS + OURS + b"a = 1\n"))
    place.uninstall()
    assert place.file.read_bytes() == b"a = 1\n"


def test_an_edit_between_two_installs_is_not_lost(place: Place) -> None:
    """What somebody changed between two installs is part of what uninstall gives back."""
    place.file.write_bytes(b"a = 1\n")
    place.install(edit(place.file, OURS + b"a = 1\n"))
    place.file.write_bytes(OURS + b"theirs = 1\n")
    place.install(edit(place.file, OURS + OURS + b"theirs = 1\n"))
    place.uninstall()
    assert place.file.read_bytes() == b"theirs = 1\n"


def test_an_install_that_changes_nothing_leaves_no_trace(place: Place) -> None:
    """An edit to what is there already writes no file, no record and no log line."""
    place.file.write_bytes(b"a")
    before = place.file.stat()
    place.install(edit(place.file, b"a"))
    assert place.file.stat() == before
    assert not place.state.exists()
    assert not place.log.exists()


def test_entries_are_found_without_a_record(place: Place) -> None:
    """Where the record was lost, our entries are still taken out of the places named."""
    place.file.write_bytes(OURS + b"a")
    place.uninstall(place.file)
    assert place.file.read_bytes() == b"a"


def test_a_removed_file_stays_removed(place: Place) -> None:
    """A file that somebody removed after the install is not brought back."""
    place.file.write_bytes(b"a")
    place.install(edit(place.file, OURS))
    place.file.unlink()
    place.uninstall()
    assert list(place.etc.iterdir()) == []
    assert changes.recorded("engine", place.state) == Record({}, ())


def test_a_symbolic_link_stays_one(place: Place) -> None:
    """The target of a link is edited and given back; a dangling link's target made and removed."""
    target = place.etc / "target"
    target.write_bytes(b"a")
    place.file.symlink_to("target")
    dangling = place.etc / "dangling"
    dangling.symlink_to("nowhere")
    place.install(edit(place.file, OURS), edit(dangling, OURS))
    assert target.read_bytes() == (place.etc / "nowhere").read_bytes() == OURS
    place.uninstall()
    assert place.file.is_symlink()
    assert dangling.is_symlink()
    assert target.read_bytes() == b"a"
    assert not (place.etc / "nowhere").exists()


def test_a_file_changed_after_the_plan_is_left_alone(place: Place) -> None:
    """An edit planned on another content is refused, and no other file of it is written."""
    other = place.etc / "other"
    place.file.write_bytes(b"a")
    edits = [edit(other, OURS), edit(place.file, OURS)]
    place.file.write_bytes(b"changed")
    with pytest.raises(ShimError, match="somebody else changed it"):
        place.install(*edits)
    assert place.file.read_bytes() == b"changed"
    assert not other.exists()
    assert changes.recorded("engine", place.state) == Record({}, ())


def test_a_failure_puts_back_what_was_written(place: Place) -> None:
    """Where one file cannot be written, those before it are put back and the log says so."""
    need.root()
    place.file.write_bytes(b"a")
    made = place.etc / "d" / "made"
    stuck = place.etc / "stuck" / "file"
    stuck.parent.mkdir()
    stuck.write_bytes(b"b")
    edits = [edit(place.file, OURS), edit(made, OURS), edit(stuck, OURS)]
    subprocess.run(["mount", "--bind", stuck.parent, stuck.parent], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", stuck.parent], check=True)
        with pytest.raises(OSError, match="Read-only") as caught:
            place.install(*edits)
    finally:
        subprocess.run(["umount", stuck.parent], check=True)
    assert caught.value.errno == errno.EROFS
    assert place.file.read_bytes() == b"a"
    assert not made.parent.exists()
    assert changes.recorded("engine", place.state) == Record({}, ())
    told = [(event["event"], Path(event["file"]).name) for event in place.events()]
    assert told == [
        ("install", "engine.conf"), ("install", "made"),
        ("install-undone", "made"), ("install-undone", "engine.conf"),
    ]  # fmt: skip


def test_what_cannot_be_logged_is_not_done(place: Place) -> None:
    """Without a log line there is no change."""
    place.file.write_bytes(b"a")
    place.log.mkdir()
    with pytest.raises(ShimError, match="cannot log"):
        place.install(edit(place.file, OURS))
    assert place.file.read_bytes() == b"a"


def test_a_log_that_is_full_half_way_is_told_without_a_contradiction(place: Place) -> None:
    """What could not be put back was changed: the same error does not say that nothing was."""
    files = [place.etc / name for name in ("a", "b")]
    for each in files:
        each.write_bytes(b"old\n")
    place.install(edit(files[0], OURS))
    line = place.log.stat().st_size
    place.uninstall()
    place.log.write_bytes(b" " * 100_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000 + line * 3 // 2, before[1]))
    try:
        with pytest.raises(ShimError, match="cannot log") as error:
            place.install(*(edit(each, OURS) for each in files))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [each.read_bytes() for each in files] == [OURS, b"old\n"]
    assert f"could not be put back: {files[0]}" in str(error.value)
    assert "nothing was changed" not in str(error.value)


def test_every_change_is_logged(place: Place) -> None:
    """The log names engine, file and sums of each change and of its end."""
    place.file.write_bytes(b"a")
    place.install(edit(place.file, OURS))
    place.uninstall()
    first, second = place.events()
    assert (first["event"], second["event"]) == ("install", "uninstall")
    assert first["engine"] == "engine"
    assert first["file"] == str(place.file)
    assert first["sha256_before"] == second["sha256_after"]
    assert first["sha256_after"] == second["sha256_before"]


def test_the_record_is_its_owners_alone(place: Place) -> None:
    """Originals may hold secrets: nobody else can read directory or record."""
    place.install(edit(place.file, OURS))
    assert stat.S_IMODE(place.state.stat().st_mode) == 0o700
    record = place.state / "engine.json"
    assert stat.S_IMODE(record.stat().st_mode) == 0o600


def test_two_installs_at_once_are_refused(place: Place) -> None:
    """While another install holds the lock, nothing is changed."""
    place.state.mkdir(parents=True)
    fd = os.open(place.state, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(ShimError, match="another install"):
            place.install(edit(place.file, OURS))
    finally:
        os.close(fd)
    assert not place.file.exists()


def test_a_damaged_record_is_refused(place: Place) -> None:
    """A record that cannot be read stops both verbs with one line."""
    place.install(edit(place.file, OURS))
    (place.state / "engine.json").write_text('{"files": []}')
    with pytest.raises(ShimError, match=r"engine\.json: is damaged"):
        place.back()


def test_a_crash_between_record_and_file_costs_nothing(place: Place) -> None:
    """Where a file was recorded but never written, uninstall finds it as it should be."""
    place.file.write_bytes(b"a")
    place.install(edit(place.file, OURS))
    place.file.write_bytes(b"a")
    assert place.back() == []
    place.uninstall()
    assert place.file.read_bytes() == b"a"
    assert not place.state.exists()


@pytest.mark.parametrize("kind", ["folder", "fifo", "loop", "large"])
def test_what_is_no_configuration_file_is_refused(place: Place, kind: str) -> None:
    """Directories, pipes, loops of links and huge files are refused, unread."""
    match kind:
        case "folder":
            place.file.mkdir()
        case "fifo":
            os.mkfifo(place.file)
        case "loop":
            place.file.symlink_to(place.file.name)
        case "large":
            place.file.write_bytes(bytes(3 << 20))
    with pytest.raises((ShimError, OSError), match=r"engine\.conf"):
        edit(place.file, OURS)


def test_the_diff_is_one_that_patch_takes(place: Place) -> None:
    """patch(1) makes of the files what the edits say, made and removed ones included."""
    place.file.write_bytes(b"a\nb")
    gone = place.etc / "gone"
    gone.write_bytes(b"x\n")
    made = place.etc / "made"
    text = changes.diff([edit(place.file, b"b\nc\n"), edit(gone, None), edit(made, b"new\n")])
    subprocess.run([need.program("patch"), "-p1", "-E", "-d", "/"], input=text.encode(), check=True)
    assert place.file.read_bytes() == b"b\nc\n"
    assert made.read_bytes() == b"new\n"
    assert not gone.exists()
