"""What is no regular file, or has no end, keeps no start waiting: each reader, each kind."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shim import atomic, config, configfile
from shim import log as journal
from shim.engines.registration import hookfile
from shim.errors import ShimError
from shim.host import cache
from shim.logread import recent
from shim.start import spec
from shim.start.wrapper import container_state, enginelog
from support import need
from support.containers import EPERM, TEST_SYSCALL, real
from support.wrapped import Recorder, WrappedLab, script

# A reader that waits for a FIFO's other end waits for good: this ends it, and the test.
_SECONDS = 20


def fifo(path: Path) -> None:
    """Make what an open waits at."""
    os.mkfifo(path, 0o600)


def zeros(path: Path) -> None:
    """Make what a read never comes to the end of."""
    need.root()
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))


def terminal(path: Path) -> None:
    """Make a link to a device that a read waits at."""
    path.symlink_to("/dev/tty")


def folder(path: Path) -> None:
    """Make a directory."""
    path.mkdir()


def listening(path: Path) -> None:
    """Make a socket."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def huge(path: Path) -> None:
    """Make a file that is larger than any of its kind, without the disk for it."""
    with path.open("wb") as file:
        file.truncate(1 << 40)
    path.chmod(0o600)


KINDS = [fifo, zeros, terminal, folder, listening, huge]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def make(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Return each kind of thing that is no file to be read."""
    kind: Callable[[Path], None] = request.param
    return kind


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Fail a test that waits, instead of waiting with it."""

    def too_late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


Make = Callable[[Path], None]


def test_a_config_json(tmp_path: Path, make: Make) -> None:
    """Neither the wrapper nor the hooks wait for it or read on and on: it is a doubt."""
    make(tmp_path / "config.json")
    with pytest.raises(ShimError, match=r"cannot read|no regular file|more than"):
        spec.read(str(tmp_path / "config.json"))


def test_settings(tmp_path: Path, make: Make) -> None:
    """Settings that are no file are not believed, and that is said."""
    make(tmp_path / "config.yaml")
    settings, doubt = config.load(str(tmp_path / "config.yaml"))
    assert settings == config.DEFAULTS
    assert str(tmp_path / "config.yaml") in doubt


def test_compiled_settings(tmp_path: Path, make: Make) -> None:
    """A compiled twin that is no file is passed over."""
    path = tmp_path / "config.yaml"
    path.write_text("on_error: deny\n")
    path.chmod(0o644)
    make(tmp_path / "config.json")
    assert config.load(str(path))[0]["on_error"] == "deny"


def test_a_log_that_is_written(tmp_path: Path, make: Make) -> None:
    """A log that is no file cannot be written: no adjustment is made without its line."""
    path = tmp_path / "audit.jsonl"
    make(path)
    if make is huge:
        journal.append(b"{}\n", str(path))
        assert path.stat().st_size == (1 << 40) + 3
        return
    with pytest.raises(OSError, match=r"regular|directory|device|symbolic"):
        journal.append(b"{}\n", str(path))


def test_a_log_that_is_read(tmp_path: Path, make: Make) -> None:
    """Of the log the last part is read, of whatever else nothing."""
    path = tmp_path / "audit.jsonl"
    make(path)
    if make is huge:
        found = recent(str(path), 3600)
        assert (found.events, found.whole) == ([], False)
        return
    with pytest.raises(OSError, match=r"regular|directory|device"):
        recent(str(path), 3600)


def test_what_a_runtime_keeps(tmp_path: Path, make: Make) -> None:
    """The state of a running container is read like all else."""
    for name in ("state.json", "seccomp.bpf"):
        make(tmp_path / name)
    with pytest.raises(ShimError):
        container_state.runc_config(str(tmp_path))
    with pytest.raises(ShimError):
        container_state.crun_filter(str(tmp_path))


def test_what_we_keep(tmp_path: Path, make: Make) -> None:
    """What is no file in our own directory is not believed."""
    tmp_path.chmod(0o755)
    make(tmp_path / "probe.json")
    assert cache.read("probe.json", str(tmp_path)) is None


def test_a_file_that_is_to_be_replaced(tmp_path: Path, make: Make) -> None:
    """What has taken a file's place since it was read is left."""
    path = tmp_path / "config.json"
    make(path)
    with pytest.raises((ShimError, OSError)):
        atomic.replace(str(path), b"new", b"old", lambda: None)
    assert [each.name for each in tmp_path.iterdir()] == ["config.json"]


# --- by the executables --------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["allow", "deny"])
@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_a_start_whose_log_is_a_pipe(tmp_path: Path, runtime: str, on_error: str) -> None:
    """It is as one whose log cannot be written: left as it was, or refused."""
    lab = WrappedLab(tmp_path, real(runtime))
    log = tmp_path / "pipe"
    os.mkfifo(log)
    lab.configure(on_error, log=log)
    if on_error == "allow":
        with lab.container() as container:
            container.ready()
            assert container.outcomes()[TEST_SYSCALL] == EPERM
        return
    with lab.container() as container:
        output, errors = container.process.communicate()
    assert (output, container.process.returncode != 0) == ("", True)
    assert "start refused (on_error: deny)" in errors


@pytest.mark.parametrize("what", ["yaml", "lines", "json"])
def test_the_shell_does_not_wait_for_settings(tmp_path: Path, what: str) -> None:
    """A pipe in the place of the settings, or of what was made of them, is passed over."""
    need.root()
    recorder = Recorder(tmp_path)
    hookfile.render(Path(recorder.wrapper), name="seccomp-shim-runtime")
    recorder.config.write_text("on_error: allow\n")
    recorder.config.chmod(0o644)
    configfile.compile_file(str(recorder.config))
    place = recorder.config.with_suffix(f".{what}")
    place.unlink()
    os.mkfifo(place)
    assert recorder.call("create", "c1").returncode == 0
    assert recorder.received() == ["create", "c1"]


def test_an_engines_log_that_is_a_pipe(tmp_path: Path) -> None:
    """Neither part of the wrapper waits for somebody to read what it has to say."""
    need.root()
    recorder = Recorder(tmp_path)
    script(Path(recorder.python), "exit 5")
    os.mkfifo(tmp_path / "pipe")
    recorder.call("--log", f"{tmp_path}/pipe", "create", "c1")
    assert recorder.received() == ["--log", f"{tmp_path}/pipe", "create", "c1"]
    enginelog.tell({"log": f"{tmp_path}/pipe"}, "error", "x")


def test_crun_may_log_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of logs that are no files do not become files."""
    monkeypatch.chdir(tmp_path)
    for log in ("journald:x", "syslog:x"):
        enginelog.tell({"log": log}, "error", "x")
    assert list(tmp_path.iterdir()) == []
    enginelog.tell({"log": f"file:{tmp_path}/log"}, "error", "x")
    assert "seccomp-shim: x" in (tmp_path / "log").read_text()
