"""Who is asked over a socket is waited for as long as was said, however he answers."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shim.engines import unixhttp
from shim.engines.docker import api
from shim.errors import ShimError
from shim.health import docker

BODY = b'{"ServerVersion": "1"}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"


@contextmanager
def served(path: Path, parts: Iterator[bytes], seconds: float) -> Iterator[str]:
    """Answer one client with ``parts``, and wait between them."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def answer() -> None:
        client = server.accept()[0]
        with client:
            client.recv(65536)
            try:
                for part in parts:
                    client.sendall(part)
                    time.sleep(seconds)
            except OSError:
                pass  # it has hung up

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield str(path)
    finally:
        thread.join(20)
        server.close()
        assert not thread.is_alive()


def bytewise(answer: bytes) -> Iterator[bytes]:
    """Yield each byte of it."""
    return (answer[i : i + 1] for i in range(len(answer)))


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_byte_at_a_time_is_too_slow(tmp_path: Path, where: str) -> None:
    """A right answer that comes a byte at a time is none once the time is over."""
    answer = HEAD % len(BODY) + BODY
    at_once = len(answer) - len(BODY) if where == "body" else 0

    def parts() -> Iterator[bytes]:
        yield answer[:at_once]
        yield from bytewise(answer[at_once:])

    with served(tmp_path / "a", parts(), 0.02) as path:
        assert unixhttp.get(path, "/info", 0.2) is None
    with served(tmp_path / "b", parts(), 0.02) as path, pytest.raises(TimeoutError):
        docker.version(path, 0.2)


def test_the_way_of_docker_run_has_the_same_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own short way to ask neither waits for ever nor reads for ever."""
    answer = HEAD % len(BODY) + BODY
    monkeypatch.setattr(api, "_SECONDS", 0.2)
    with (
        served(tmp_path / "a", bytewise(answer), 0.02) as path,
        pytest.raises(OSError, match=r"too slowly|timed out"),
    ):
        api.get_info(path)
    monkeypatch.setattr(api, "_SECONDS", 20)
    monkeypatch.setattr(api, "_LONGEST", 1 << 20)
    endless = (b"x" * (1 << 16) for _ in range(64))
    with served(tmp_path / "b", endless, 0) as path, pytest.raises(OSError, match="too much"):
        api.get_info(path)


def test_what_nobody_would_read_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer beyond all measure is none; one within it is taken as it is."""
    with served(tmp_path / "a", iter([HEAD % len(BODY) + BODY]), 0) as path:
        assert unixhttp.get(path, "/info", 20) == BODY
    monkeypatch.setattr(unixhttp, "LONGEST", len(BODY) - 1)
    with served(tmp_path / "b", iter([HEAD % len(BODY) + BODY]), 0) as path:
        assert unixhttp.get(path, "/info", 20) is None
    with (
        served(tmp_path / "c", iter([HEAD % len(BODY) + BODY]), 0) as path,
        pytest.raises(ShimError, match="more than anybody would read"),
    ):
        docker.version(path, 20)
