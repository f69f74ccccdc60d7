"""The admin's settings and their compiled twin."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from shim import config, configfile
from shim.errors import ShimError
from support import need

GOOD = "on_error: deny\nlog: /var/log/x.jsonl\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a settings file that is not there yet."""
    return tmp_path / "config.yaml"


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write the settings with ``mode``."""
    path.write_text(text)
    path.chmod(mode)


def test_without_a_file_the_defaults_hold(path: Path) -> None:
    """A host without settings has the defaults and nothing to complain of."""
    assert config.load(str(path)) == (config.DEFAULTS, "")


def test_an_edit_reaches_the_start_path_by_itself(path: Path) -> None:
    """The first load after an edit compiles the settings anew."""
    write(path, GOOD)
    assert config.load(str(path))[0]["on_error"] == "deny"
    assert path.with_suffix(".json").exists()
    write(path, "on_error: allow\n# longer\n")
    assert config.load(str(path)) == (config.DEFAULTS, "")


def test_an_edit_that_keeps_size_and_time_is_seen(path: Path) -> None:
    """A modification time can be put back; the time of the change and the inode tell."""
    for setting in ("on_error: deny \n", "on_error: allow\n", "on_error: deny \n"):
        write(path, setting)
        os.utime(path, (1, 1))
        assert config.load(str(path))[0]["on_error"] == setting.split()[1]
        draft = path.with_suffix(".draft")
        write(
            draft, setting.replace("deny ", "allow") if "deny" in setting else "on_error: deny \n"
        )
        os.utime(draft, (1, 1))
        draft.rename(path)
        assert config.load(str(path))[0]["on_error"] != setting.split()[1]


def test_a_full_disk_leaves_no_draft(tmp_path: Path, path: Path) -> None:
    """Settings on a full disk hold uncompiled, and nothing but what was there stays beside them."""
    need.root()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(tmp_path)], check=True)
    try:
        write(path, GOOD)
        ballast = tmp_path / "ballast"
        with contextlib.suppress(OSError):
            ballast.write_bytes(b"x" * 16384)
        for _ in range(3):
            assert config.load(str(path))[0]["on_error"] == "deny"
            assert set(tmp_path.iterdir()) == {path, ballast}
        ballast.unlink()
        assert config.load(str(path))[0]["on_error"] == "deny"
        made = {path, path.with_suffix(".json"), path.with_suffix(".lines")}
        assert set(tmp_path.iterdir()) == made
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_compiled_file_spares_the_yaml(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the YAML file is unchanged it is not parsed again."""
    write(path, GOOD)
    config.load(str(path))
    monkeypatch.setattr(configfile, "parse", None)
    assert config.load(str(path))[0]["on_error"] == "deny"


def test_a_broken_edit_keeps_the_last_good_settings(path: Path) -> None:
    """An admin who asked for deny keeps it through a typing error, and is told."""
    write(path, GOOD)
    config.load(str(path))
    write(path, "on_error: dney\n")
    settings, complaint = config.load(str(path))
    assert settings["on_error"] == "deny"
    assert "dney" in complaint
    assert "last good settings" in complaint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("on_error: maybe", "on_error: 'maybe' (allow or deny)"),
        ("log: here", "log: 'here' (an absolute path)"),
        (
            "colour: red",
            "unknown setting 'colour' (there are: on_error, log, log_max, log_detail, log_repeats, "
            "runtimes, test_syscall, unknown_calls)",
        ),
        ("log_detail: long", "log_detail: 'long' (brief or full)"),
        ("log_repeats: 3", "log_repeats: 3 (write or count)"),
        ("log_max: 64", "log_max: 64 (such as 64 MB x 4"),
        ("log_max: 1 KB x 4", "log_max: '1 KB x 4' (such as 64 MB x 4"),
        ("log_max: 1 MB x 0", "log_max: '1 MB x 0' (such as 64 MB x 4"),
        ("runtimes: runc", "runtimes: must be a mapping of names to paths"),
        ("runtimes: {a b: /x}", "runtimes: the name 'a b' (letters, digits and ._- only)"),
        ("runtimes: {runc: runc}", "runtimes: runc: 'runc' (an absolute path)"),
        ('runtimes: {runc: "/a\\nruntime b /c"}', "runtimes: runc: '/a\\nruntime b /c'"),
        ("test_syscall: 335", "test_syscall: 335 (a number from 337 to 423)"),
        ("unknown_calls: ENOSYS", "unknown_calls: 'ENOSYS' (default or enosys)"),
        ("test_syscall: yes", "test_syscall: True (a number from 337 to 423)"),
        ("- on_error", "must be a mapping of settings"),
        ("on_error: [", "is not YAML"),
        ("a: !!python/object/apply:os.system [true]", "is not YAML"),
    ],
)
def test_each_mistake_is_one_line(path: Path, text: str, message: str) -> None:
    """A mistake is named with the file it is in and what to write instead."""
    with pytest.raises(ShimError) as failure:
        configfile.parse(text.encode(), str(path))
    assert str(failure.value).startswith(f"{path}: {message}")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_file_that_others_may_write_is_not_believed(path: Path, mode: int) -> None:
    """Group- or world-writable settings are ignored, and the complaint says so."""
    write(path, GOOD, mode)
    settings, complaint = config.load(str(path))
    assert settings == config.DEFAULTS
    assert "written by others" in complaint


def test_a_compiled_file_that_others_may_write_is_not_believed(path: Path) -> None:
    """Only the YAML counts where anybody could have written its compiled twin."""
    write(path, "on_error: allow\n")
    config.load(str(path))
    compiled = path.with_suffix(".json")
    compiled.write_text(compiled.read_text().replace("allow", "deny"))
    compiled.chmod(0o666)
    assert config.load(str(path))[0]["on_error"] == "allow"


def test_a_foreign_file_is_not_believed(path: Path) -> None:
    """Settings that neither root nor this user owns are ignored."""
    need.root()
    write(path, GOOD)
    os.chown(path, 65534, 65534)
    assert config.load(str(path))[0] == config.DEFAULTS


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"settings": []}', b"\xff"])
def test_a_damaged_compiled_file_is_compiled_again(path: Path, damage: bytes) -> None:
    """Damage to the compiled file costs compilations and nothing else."""
    write(path, GOOD)
    config.load(str(path))
    path.with_suffix(".json").write_bytes(damage)
    assert config.load(str(path))[0]["on_error"] == "deny"


def test_the_shell_part_has_the_settings_as_lines(path: Path) -> None:
    """Names may be followed by paths with spaces; before them comes what they were made of."""
    write(
        path,
        "# a comment\non_error: deny\ntest_syscall: 400\n"
        "runtimes: {runc: /opt/my runc, crun: /usr/bin/crun}\n",
    )
    config.load(str(path))
    lines = path.with_suffix(".lines")
    source = "".join(f"yaml {line}\n" for line in path.read_text().splitlines()[1:])
    assert lines.read_text() == source + (
        "settings\non_error deny\ntest_syscall 400\nlog /var/log/seccomp-shim/audit.jsonl\n"
        "runtime runc /opt/my runc\nruntime crun /usr/bin/crun\n"
    )
    assert lines.stat().st_mode & 0o777 == 0o644
