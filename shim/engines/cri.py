"""What a running containerd has read and runs, asked over its Container Runtime Interface.

Unary gRPC calls, by hand: HTTP/2 (RFC 9113) with headers that are written out (RFC 7541, 6.2.2),
and of the answer only its data, a message of k8s.io/cri-api's runtime/v1/api.proto.
"""

import json
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _RESET = 0, 1, 4, 6, 7, 8, 3
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_STREAM = 1
_LARGE = 1 << 24  # what the server may send before it has to be told that it was taken
_WINDOW_SIZE = 4  # SETTINGS_INITIAL_WINDOW_SIZE
_INFO = 2  # StatusResponse.info: map<string, string>
_ITEMS, _ID, _HANDLER = 1, 1, 7  # ListPodSandboxResponse.items, PodSandbox.id, .runtime_handler
_FAILURES = (OSError, ValueError, KeyError, IndexError, struct.error)
_VERBOSE = b"\x08\x01"  # StatusRequest.verbose = 1: true


def config(path: str, seconds: float = 5) -> dict[str, Any] | None:
    """Return the configuration that the CRI service at the socket ``path`` runs with.

    None: nobody answers there, or not with that.
    """
    try:
        answer = _asked(path, "Status", _VERBOSE, time.monotonic() + seconds)
        info = dict(_entry(value) for number, value in _fields(answer) if number == _INFO)
        found = json.loads(info["config"])
    except _FAILURES:
        return None
    return found if isinstance(found, dict) else None


def pods(path: str, handler: str, seconds: float = 5) -> list[str] | None:
    """Return the ids of the pods that asked for ``handler``; None: nobody answers at ``path``."""
    try:
        answer = _asked(path, "ListPodSandbox", b"", time.monotonic() + seconds)
        items = [dict(_fields(value)) for number, value in _fields(answer) if number == _ITEMS]
        return [each[_ID].decode() for each in items if each.get(_HANDLER, b"") == handler.encode()]
    except _FAILURES:
        return None


def _asked(path: str, method: str, message: bytes, deadline: float) -> bytes:
    """Return the answer of a method; ValueError: there is none."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(max(0.01, deadline - time.monotonic()))
        client.connect(path)
        return _called(client, f"/runtime.v1.RuntimeService/{method}".encode(), message, deadline)


def _called(client: socket.socket, method: bytes, message: bytes, deadline: float) -> bytes:
    headers = b"".join(
        b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", method),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )
    request = b"\0" + struct.pack(">I", len(message)) + message
    client.sendall(
        _PREFACE
        + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _WINDOW_SIZE, _LARGE))
        + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGE))
        + _frame(_HEADERS, _END_HEADERS, _STREAM, headers)
        + _frame(_DATA, _END_STREAM, _STREAM, request)
    )
    data = b""
    while len(data) < _LARGE:
        kind, flags, body = _read_frame(client, deadline)
        if kind == _DATA:
            data += body
        elif kind == _SETTINGS and not flags & _ACK:
            client.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            client.sendall(_frame(_PING, _ACK, 0, body))
        if kind in (_GOAWAY, _RESET) or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            break
    # A refusal has trailers alone, and no message.
    (length,) = struct.unpack(">I", data[1:5])
    return data[5 : 5 + length]


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _read_frame(client: socket.socket, deadline: float) -> tuple[int, int, bytes]:
    head = _read(client, 9, deadline)
    return head[3], head[4], _read(client, int.from_bytes(head[:3]), deadline)


def _read(client: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        client.settimeout(left)
        part = client.recv(size - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the fields of a protobuf message that are messages or text, with their numbers."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        value, at = varint(message, at)
        if tag & 7 == 2:
            yield tag >> 3, message[at : at + value]
            at += value
        elif tag & 7:
            raise ValueError("no such type in here")


def _entry(message: bytes) -> tuple[str, str]:
    found = dict(_fields(message))
    return found[1].decode(), found.get(2, b"").decode()


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at ``at``, and where the next begins."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
