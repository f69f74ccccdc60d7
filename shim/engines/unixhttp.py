"""HTTP over a socket of this host, as Docker's daemon speaks it."""

import contextlib
import http.client
import socket


class Connection(http.client.HTTPConnection):
    """A connection to the socket ``path``; no step of it takes longer than ``seconds``."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("docker", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """Connect. OSError."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(path: str, url: str, seconds: float) -> bytes | None:
    """Return what the socket ``path`` answers to GET ``url``; None: nothing, or an error."""
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        contextlib.closing(Connection(path, seconds)) as connection,
    ):
        connection.request("GET", url)
        answer = connection.getresponse()
        return answer.read() if answer.status == http.HTTPStatus.OK else None
    return None
