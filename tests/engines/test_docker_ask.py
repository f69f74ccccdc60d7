"""Which daemon is asked, and how: the one that docker would ask, and the same answer."""

import json
import socket
import threading
from pathlib import Path

import pytest

from shim.engines.docker import api
from shim.engines.docker.commandline import GLOBAL, scan
from shim.engines.docker.daemon_facts import describe, gather
from support import engines

DEFAULT = "unix:///var/run/docker.sock"


@pytest.mark.parametrize(
    ("options", "environment", "current", "address"),
    [
        ("", {}, None, DEFAULT),
        ("", {}, "default", DEFAULT),
        ("", {}, "", DEFAULT),
        ("", {}, "there", ""),
        ("", {"DOCKER_HOST": "unix:///a"}, "there", "unix:///a"),
        ("", {"DOCKER_HOST": ""}, "there", DEFAULT),
        ("", {"DOCKER_HOST": "ssh://a"}, None, ""),
        ("", {"DOCKER_HOST": "unix:///a", "DOCKER_CONTEXT": "there"}, None, "unix:///a"),
        ("", {"DOCKER_CONTEXT": "default"}, None, ""),
        ("-Hunix:///b", {"DOCKER_HOST": "unix:///a", "DOCKER_CONTEXT": "x"}, "there", "unix:///b"),
        ("--host=tcp://b", {}, None, ""),
        ("--context default", {"DOCKER_HOST": "unix:///a"}, None, ""),
        ("-c x", {}, None, ""),
    ],
)
def test_only_a_socket_that_is_surely_dockers_is_asked(
    tmp_path: Path,
    options: str,
    environment: dict[str, str],
    current: str | None,
    address: str,
) -> None:
    """Whatever takes the client's contexts to tell is the client's to tell."""
    if current is not None:
        (tmp_path / "config.json").write_text(json.dumps({"currentContext": current}))
    found, _ = scan(options.split(), 0, GLOBAL)
    environment = {"DOCKER_CONFIG": str(tmp_path), **environment}
    assert api.socket_address(found, environment) == address


@pytest.mark.parametrize("text", ["{", "[]"])
def test_settings_that_are_not_understood_are_dockers(tmp_path: Path, text: str) -> None:
    """Nothing is guessed of them; --config names another directory than the environment."""
    (tmp_path / "config.json").write_text(text)
    assert api.socket_address([("config", str(tmp_path))], {"DOCKER_CONFIG": "/nonexistent"}) == ""


def test_the_socket_and_the_client_tell_the_same() -> None:
    """The short way leads to what the long way leads to."""
    with engines.dockerd() as docker:
        address = f"unix://{docker.socket}"
        direct = gather(api.get_info(str(docker.socket)), address)
        assert direct.version
        assert direct == describe(docker.client)


@pytest.mark.parametrize(
    "answer", [b"", b"hello", b"HTTP/1.0 400 Bad Request\r\n\r\n{}", b"HTTP/1.0 200 OK\r\n\r\n[]"]
)
def test_what_answers_otherwise_is_left_to_the_client(tmp_path: Path, answer: bytes) -> None:
    """What is no daemon's answer is an error to be caught."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def serve() -> None:
            with server.accept()[0] as client:
                client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ValueError, match=r"^"):
            api.get_info(path)
        thread.join()


def test_what_does_not_answer_is_left_to_the_client(tmp_path: Path) -> None:
    """No socket is an error to be caught, too."""
    with pytest.raises(OSError, match="No such file"):
        api.get_info(str(tmp_path / "none"))
