"""A client of the Kubernetes Container Runtime Interface, as small as the tests can do with.

Debian has no crictl. The messages are encoded by hand: field numbers are those of
k8s.io/cri-api/pkg/apis/runtime/v1/api.proto, which never change.
"""

import io
import json
import tarfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc

from shim.engines.cri import varint

IMAGE = "docker.io/library/shim-test:latest"
_NODE = 2  # NamespaceMode: the host's own network, so that no CNI plugin is needed
HOST_NETWORK = {1: _NODE}
RUNTIME_DEFAULT: Mapping[int, Any] = {1: 0}  # SecurityProfile


def encode(message: Mapping[int, Any]) -> bytes:
    """Encode fields by number: text, bytes, number, message, or a list of one of these."""
    out = b""
    for number, value in message.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, int):
                out += _varint(number << 3) + _varint(each)
                continue
            data = encode(each) if isinstance(each, Mapping) else each
            data = data.encode() if isinstance(data, str) else data
            out += _varint(number << 3 | 2) + _varint(len(data)) + data
    return out


def decode(data: bytes) -> dict[int, bytes | int]:
    """Decode a message one level deep; of a repeated field the last."""
    message: dict[int, bytes | int] = {}
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        length, at = varint(data, at)
        if tag & 7 == 2:
            message[tag >> 3] = data[at : at + length]
            at += length
        else:
            message[tag >> 3] = length
    return message


class Runtime:
    """The service that answers on a channel."""

    def __init__(self, channel: Any, cgroup: str) -> None:
        self.channel = channel
        self.cgroup = cgroup

    def call(self, method: str, request: Mapping[int, Any]) -> dict[int, bytes | int]:
        """Call a method of the service; grpc.RpcError says what it complains of."""
        stub = self.channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=encode,
            response_deserializer=decode,
        )
        answer: dict[int, bytes | int] = stub(request, timeout=60, wait_for_ready=True)
        return answer

    def wait(self) -> None:
        """Wait until the service takes calls: it answers before it does."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self.call("ListPodSandbox", {})
                return
            except grpc.RpcError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def start(self, handler: str, *command: str) -> tuple[str, str]:
        """Start a pod of ``handler`` with one container in it; give the ids of both."""
        name = f"pod-{uuid.uuid4().hex[:8]}"
        pod = {
            1: {1: name, 2: name, 3: "default"},
            8: {1: self.cgroup, 2: {1: HOST_NETWORK, 9: RUNTIME_DEFAULT}},
        }
        container = {
            1: {1: "main"},
            2: {1: IMAGE},
            3: list(command),
            15: {2: {3: HOST_NETWORK, 15: RUNTIME_DEFAULT}},
        }
        sandbox = _text(self.call("RunPodSandbox", {1: pod, 2: handler})[1])
        try:
            made = self.call("CreateContainer", {1: sandbox, 2: container, 3: pod})
            ident = _text(made[1])
            self.call("StartContainer", {1: ident})
        except grpc.RpcError:
            self.end(sandbox)
            raise
        return sandbox, ident

    def end(self, sandbox: str) -> None:
        """Stop a pod and remove it."""
        self.call("StopPodSandbox", {1: sandbox})
        self.call("RemovePodSandbox", {1: sandbox})

    @contextmanager
    def container(self, handler: str, *command: str) -> Iterator[str]:
        """Run a pod of ``handler`` with one container in it; give the container's id."""
        sandbox, container = self.start(handler, *command)
        try:
            yield container
        finally:
            self.end(sandbox)

    def exec(self, container: str, *command: str) -> str:
        """Run a command in a container; give what it printed."""
        answer = self.call("ExecSync", {1: container, 2: list(command), 3: 60})
        assert answer.get(3, 0) == 0, answer
        return _text(answer.get(1, b""))


@contextmanager
def service(socket: Path, cgroup: str) -> Iterator[Runtime]:
    """Yield the service behind ``socket``, which puts its pods into ``cgroup``."""
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        runtime = Runtime(channel, cgroup)
        runtime.wait()
        yield runtime


def image_archive(layer: bytes, *stay: str) -> bytes:
    """Return an image of one layer as ``docker save`` would, for ``ctr image import``.

    The command ``stay`` (default: ``/bin/sleep 1000``) keeps a pod's sandbox alive.
    """
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": list(stay or ("/bin/sleep", "1000"))},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
        "layer.tar": layer,
    }
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def _text(value: bytes | int) -> str:
    assert isinstance(value, bytes)
    return value.decode()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
