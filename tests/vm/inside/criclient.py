"""A client of containerd's CRI service that waits, as the lab's other clients do.

Runs in the stack with its python3-grpcio: ``start SOCKET HANDLER NAME ARGUMENT...``, then ``again
SOCKET NAME`` (what the kubelet does for a restart: one more container in the same pod) and ``exec
SOCKET NAME ARGUMENT...``. Exit status and output are the process's own.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from support import cri

_EXITED = 2  # ContainerState
_SECONDS = 60


def main(argv: list[str]) -> int:
    """Do what the command line says."""
    verb, socket, *words = argv
    with cri.service(Path(socket), "/lab") as runtime:
        if verb == "start":
            handler, name, *command = words
            pod = _pod(name)
            sandbox = _text(runtime.call("RunPodSandbox", {1: pod, 2: handler})[1])
            _keep(name, {"sandbox": sandbox, "command": command, "attempt": 0})
            return _container(runtime, name)
        kept = _kept(words[0])
        if verb == "again":
            _keep(words[0], {**kept, "attempt": kept["attempt"] + 1})
            return _container(runtime, words[0])
        answer = runtime.call("ExecSync", {1: kept["container"], 2: words[1:], 3: _SECONDS})
        sys.stdout.write(_text(answer.get(1, b"")))
        return int(answer.get(3, 0))


def _container(runtime: cri.Runtime, name: str) -> int:
    kept = _kept(name)
    log = f"{kept['attempt']}.log"
    container = {
        1: {1: "main", 2: kept["attempt"]},
        2: {1: cri.IMAGE},
        3: kept["command"],
        11: log,
        15: {2: {3: cri.HOST_NETWORK, 15: cri.RUNTIME_DEFAULT}},
    }
    request = {1: kept["sandbox"], 2: container, 3: _pod(name)}
    ident = _text(runtime.call("CreateContainer", request)[1])
    _keep(name, {**kept, "container": ident})
    runtime.call("StartContainer", {1: ident})
    while (status := _status(runtime, ident)).get(3) != _EXITED:
        time.sleep(1)
    for line in (_folder(name) / log).read_text().splitlines():
        print(line.split(" ", 3)[3])  # time, stream, tag, text
    return int(status.get(7, 0))


def _status(runtime: cri.Runtime, ident: str) -> dict[int, Any]:
    answer = runtime.call("ContainerStatus", {1: ident})[1]
    assert isinstance(answer, bytes)
    return cri.decode(answer)


def _pod(name: str) -> dict[int, Any]:
    return {
        1: {1: name, 2: name, 3: "default"},
        3: str(_folder(name)),
        8: {1: "/lab", 2: {1: cri.HOST_NETWORK, 9: cri.RUNTIME_DEFAULT}},
    }


def _folder(name: str) -> Path:
    return Path("/run/pods") / name


def _keep(name: str, document: dict[str, Any]) -> None:
    _folder(name).mkdir(parents=True, exist_ok=True)
    (_folder(name) / "kept.json").write_text(json.dumps(document))


def _kept(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((_folder(name) / "kept.json").read_text())
    return document


def _text(value: Any) -> str:
    assert isinstance(value, bytes)
    return value.decode()
