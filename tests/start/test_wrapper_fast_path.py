"""The wrapper's fast way: without an interpreter where the kernel needs nothing."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import shim
from shim import configfile
from shim.catalog import data
from support.wrapped import Recorder


@pytest.fixture
def idle(recorder: Recorder) -> Path:
    """Leave word in the directory that the wrapper looks at, as the cache does."""
    folder = recorder.cache
    folder.mkdir(mode=0o755)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    packages = Path(shim.__file__).resolve().parent.parent
    word = folder / "idle"
    word.write_text(f"{boot} {packages}\n")
    return word


@pytest.mark.parametrize("verb", ["create", "run", "exec"])
def test_where_the_kernel_needs_nothing_no_interpreter_is_started(
    recorder: Recorder, idle: Path, verb: str
) -> None:
    """Word of this boot and version is enough for the runtime to be started at once."""
    assert idle.exists()
    recorder.call(verb, "c1")
    assert recorder.received() == [verb, "c1"]
    assert not recorder.interpreted()


@pytest.mark.parametrize("end", ["\n", "", "\n\n"])
def test_the_fast_way_sees_an_edit_that_keeps_the_time(
    recorder: Recorder, idle: Path, end: str
) -> None:
    """No interpreter while the text is the same, whatever its time; at once when it is not."""
    assert idle.exists()
    odd = "log: /a\\b  # with\todd  spaces \u00e9"
    recorder.config.write_text(f"{odd}\n# a comment\n\n#test_syscall: 400{end}")
    recorder.config.chmod(0o644)
    os.utime(recorder.config, (1, 1))
    configfile.compile_file(str(recorder.config))
    for when in (1, 5, 1):
        os.utime(recorder.config, (when, when))
        recorder.call("create", "c1")
        assert not recorder.interpreted()
    text = recorder.config.read_text()
    for edited in (
        text.replace("#test_syscall: 400", "test_syscall: 400 "),
        f"{text}\nx",
        "log: /x\n",
        "",
    ):
        recorder.config.write_text(edited)
        os.utime(recorder.config, (1, 1))
        recorder.call("create", "c1")
        assert recorder.interpreted(), edited


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ('log: "/a\n b"\n', 'log: "/a\n# c\n b"\n'),
        ("log: |\n /a\n", "log: |\n /a\n\n /b\n"),
        ("# c\nlog: /x\n", "# c\rtest_syscall: 400\nlog: /x\n"),
        ("# c\nlog: /x\n", "# c\u2028test_syscall: 400\nlog: /x\n"),
    ],
)
def test_a_comment_that_is_none_counts(
    recorder: Recorder, idle: Path, text: str, edited: str
) -> None:
    """Within quotes and blocks what looks like a comment or nothing is text: nothing is assumed."""
    assert idle.exists()
    recorder.configure(text)
    recorder.config.write_text(edited)
    recorder.call("create", "c1")
    assert recorder.interpreted()


def test_long_settings_are_not_read_by_the_shell(recorder: Recorder, idle: Path) -> None:
    """A shell reads byte by byte: what is longer than anybody's settings is left to Python."""
    assert idle.exists()
    recorder.configure(f"on_error: deny\n{'# more' * 4000}\n")
    recorder.call("create", "c1")
    assert recorder.interpreted()
    assert recorder.config.with_suffix(".lines").read_text().startswith("yaml\nsettings\n")


def test_with_a_test_syscall_the_fast_way_is_closed(recorder: Recorder, idle: Path) -> None:
    """A test_syscall asked for by option or by settings is always looked at."""
    assert idle.exists()
    recorder.call("--test-syscall", "400", "create", "c1")
    assert recorder.interpreted()
    recorder.configure("test_syscall: 400\n")
    recorder.call("create", "c1")
    assert recorder.interpreted()


def spoil_boot(idle: Path) -> None:
    """Be of another boot."""
    idle.write_text("0" + idle.read_text()[1:])


def spoil_version(idle: Path) -> None:
    """Be of code elsewhere."""
    idle.write_text(idle.read_text().rstrip() + "x\n")


def spoil_age(idle: Path) -> None:
    """Be older than the catalogue."""
    before = os.stat(data.__file__).st_mtime - 1
    os.utime(idle, (before, before))


def spoil_owner(idle: Path) -> None:
    """Belong to somebody else."""
    os.chown(idle, 65534, 65534)


def spoil_folder(idle: Path) -> None:
    """Be in somebody else's directory."""
    os.chown(idle.parent, 65534, 65534)


def spoil_file(idle: Path) -> None:
    """Be a link."""
    target = idle.rename(idle.with_name("elsewhere"))
    idle.symlink_to(target)


def spoil_content(idle: Path) -> None:
    """Be empty, as the cache leaves it where the kernel does need something."""
    idle.write_text("")


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_boot, spoil_version, spoil_age, spoil_owner, spoil_folder, spoil_file, spoil_content,
        Path.unlink,
    ],
)  # fmt: skip
def test_word_that_does_not_hold_is_not_believed(
    recorder: Recorder, idle: Path, spoil: Callable[[Path], None]
) -> None:
    """Of another boot or version, or of anybody's making: then the interpreter looks."""
    spoil(idle)
    recorder.call("create", "c1")
    assert recorder.interpreted()
    assert recorder.received() == ["create", "c1"]
