"""A user's dockerd is asked with that user's rights, at a socket of his own and no other."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shim.risk import container_names
from shim.risk.groups import Place
from support import need

ID, USER = "0123456789abcdef" * 4, 1000
WHERE = Place("container", "docker", ID, user=USER)


@contextmanager
def served(path: Path, owner: int) -> Iterator[None]:
    """Answer at a socket as dockerd does."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    os.chown(path, owner, owner)
    server.listen()
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                _answer(server.accept()[0])
        finally:
            os._exit(0)
    server.close()
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _answer(client: socket.socket) -> None:
    while b"\r\n\r\n" in (asked := client.recv(65536)):
        each = {"Id": ID, "Names": ["/web"], "Image": "app", "HostConfig": {}}
        body = json.dumps([each] if b"json?all" in asked else each).encode()
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    client.close()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory of the user's, where his dockerd is taken to listen."""
    need.root()
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    os.chown(path, USER, USER)
    monkeypatch.setattr(container_names, "_docker_socket", lambda _: str(path / "docker.sock"))
    return path


def name() -> str:
    """Return what the container is called."""
    return container_names.EngineRecords([WHERE]).known(WHERE).name


def test_his_own_socket_is_asked(directory: Path) -> None:
    """It tells the name of the container."""
    with served(directory / "docker.sock", USER):
        assert name() == "web"


def test_a_link_to_roots_socket_is_not_followed(directory: Path, tmp_path: Path) -> None:
    """Nor is a socket asked that has come there otherwise, or one below a directory of others."""
    with served(tmp_path / "root.sock", 0):
        (directory / "docker.sock").symlink_to(tmp_path / "root.sock")
        assert name() == ID[:12]
        (directory / "docker.sock").unlink()
        os.link(tmp_path / "root.sock", directory / "docker.sock")
        assert name() == ID[:12]
        os.chown(tmp_path / "root.sock", USER, USER)
        assert name() == "web"
        os.chown(directory, 0, 0)
        assert name() == ID[:12]
