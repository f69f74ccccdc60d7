"""containerd and CRI-O: whether their sockets speak, with no client of theirs."""

import socket
import time

from shim.errors import ShimError

CONTAINERD = "/run/containerd/containerd.sock"
CRIO = "/run/crio/crio.sock"
# How every gRPC connection begins (RFC 9113, 3.4): the client's preface and empty settings, and
# the server's settings in return.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = 4
_EMPTY = bytes((0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0))


def version(path: str, seconds: float) -> str:
    """See that a gRPC server answers at ``path``; it tells no version. OSError, ShimError: none."""
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(seconds)
        client.connect(path)
        client.sendall(_PREFACE + _EMPTY)
        heard = b""
        while len(heard) < len(_EMPTY):
            client.settimeout(max(0.01, deadline - time.monotonic()))
            part = client.recv(len(_EMPTY) - len(heard))
            if not part:
                raise ShimError("it hangs up")
            heard += part
    if heard[3] != _SETTINGS:
        raise ShimError("what answers speaks no gRPC")
    return ""
