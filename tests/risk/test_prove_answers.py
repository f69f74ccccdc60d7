"""The verb prove and whoever speaks for an engine: what it says is not believed without a look."""

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from shim import cli
from shim.engines import demonstration, oci, unixhttp
from shim.errors import ShimError
from shim.health import docker
from shim.risk import prove
from shim.risk.sides import Startable
from support import need


@contextmanager
def speaking(path: Path, *parts: bytes, pause: float = 0) -> Iterator[None]:
    """Answer every request at a socket with these parts, a while apart."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                with client, client.makefile("rb") as asked, suppress(OSError):
                    asked.readline()
                    asked.read(int(http.client.parse_headers(asked).get("Content-Length", 0)))
                    client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                    for part in parts:
                        client.sendall(part)
                        time.sleep(pause)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def started(pid: int, ended: int | None = None) -> Startable:
    """Return a side whose engine tells this process, and how it has ended."""

    @contextmanager
    def start(*, command: list[str]) -> Iterator[tuple[int, Callable[[], int | None]]]:
        del command
        yield pid, lambda: ended

    return Startable("x", start)


def test_only_our_own_program_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine may tell the number of another host's process: whoever has it here is let be."""
    need.root()
    monkeypatch.setattr(prove, "_SECONDS", 0.1)
    monkeypatch.setattr(prove, "probed", lambda *_: pytest.fail("somebody else was probed"))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        try:
            deadline = time.monotonic() + 10
            while not prove._libc(other.pid):
                assert time.monotonic() < deadline
            with pytest.raises(ShimError, match="is not the container's program"):
                prove._of_engine(started(other.pid))
            with pytest.raises(ShimError, match="has ended at once, with exit status 7"):
                prove._of_engine(started(other.pid, 7))
        finally:
            other.kill()


def test_nothing_is_run_from_a_directory_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has root's TMPDIR could put a program of his own in the place of ours."""
    need.root()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 1000, 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(theirs))
    with pytest.raises(ShimError, match="others can change it"):
        prove.of_runtime("/usr/bin/false", None)
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "bundle").mkdir()
        with pytest.raises(ShimError, match="others can change it"):
            oci.bundle(Path(name, "bundle"), None, [])
        with pytest.raises(ShimError, match="others can change it"):
            demonstration.wrapper(Path(name), Path(name, "log"), "/usr/bin/false")


@pytest.mark.parametrize(
    "answer",
    [
        {"ServerVersion": "1", "Runtimes": [1]},
        {"ServerVersion": "1", "Runtimes": {"runc": {}}, "State": []},
        {"ServerVersion": "1", "Runtimes": {"runc": {}}, "State": {"Running": False}},
    ],
)
def test_an_answer_that_cannot_be_understood_is_no_death(
    answer: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 1 is a process that died; whatever is said for Docker, an error is 2."""
    need.root()
    with speaking(tmp_path / "socket", json.dumps(answer).encode()):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/socket")
        assert cli.main(["prove", "--engine", "docker"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_answer_is_waited_for_or_read_without_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes a byte at a time, or never ends."""
    with (
        speaking(tmp_path / "slow", *[b" "] * 40, pause=0.05),
        pytest.raises(TimeoutError),
    ):
        docker.version(str(tmp_path / "slow"), 0.3)
    monkeypatch.setattr(unixhttp, "LONGEST", 1000)
    with (
        speaking(tmp_path / "long", *[b" " * 999] * 3),
        pytest.raises(ShimError, match="more than anybody would read"),
    ):
        docker.version(str(tmp_path / "long"), 10)
