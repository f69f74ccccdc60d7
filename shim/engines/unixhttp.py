"""HTTP over a socket of this host, as Docker's daemon speaks it."""

import contextlib
import http.client
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# No answer that we ask for is longer.
LONGEST = 8 << 20


class Connection(http.client.HTTPConnection):
    """A connection to the socket ``path``, which lasts no longer than ``seconds`` in all.

    Anybody may listen there: who answers a byte at a time is not waited for longer, either.
    """

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("docker")
        self._path = path
        self._deadline = time.monotonic() + seconds

    def connect(self) -> None:
        """Connect. OSError."""
        self.sock = _BoundedSocket(self._deadline)
        self.sock.connect(self._path)


class _BoundedSocket(socket.socket):
    """A socket that waits until ``deadline`` (time.monotonic) and raises TimeoutError then."""

    def __init__(self, deadline: float) -> None:
        super().__init__(socket.AF_UNIX)
        self._deadline = deadline
        self._hurry()

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0) -> int:
        """Receive into ``buffer``, which is how http.client reads."""
        self._hurry()
        return super().recv_into(buffer, nbytes, flags)

    def _hurry(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it takes too long")
        self.settimeout(left)


def get(path: str, url: str, seconds: float) -> bytes | None:
    """Return what the socket ``path`` answers to GET ``url``; None: nothing, or an error."""
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        contextlib.closing(Connection(path, seconds)) as connection,
    ):
        connection.request("GET", url)
        answer = connection.getresponse()
        data = answer.read(LONGEST + 1)
        return data if answer.status == http.HTTPStatus.OK and len(data) <= LONGEST else None
    return None
