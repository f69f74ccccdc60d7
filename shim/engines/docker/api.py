"""Ask the daemon that docker would talk to, by the shortest way that surely leads to the same one.

A socket that docker would take without looking into contexts is asked directly: the client, started
twice for its answers, takes longer than all else that is done before a ``docker run``.
"""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from shim import config
from shim.engines.docker import commandline
from shim.engines.docker.choose import Daemon
from shim.engines.docker.daemon_facts import describe, gather, wanting

_SECONDS = 20
_LONGEST = 8 << 20
_UNIX = "unix://"
_DEFAULT = f"{_UNIX}/var/run/docker.sock"


def ask(real: str, options: Sequence[str], of: str = "") -> Daemon:
    """Return what is known of the daemon for the client ``real`` with its global ``options``.

    ``of`` is that of ``gather``. ShimError: it does not answer, or is no Docker daemon.
    """
    address = socket_address(commandline.scan(options, 0, commandline.GLOBAL)[0], os.environ)
    try:
        info = get_info(address.removeprefix(_UNIX)) if address else None
    except (OSError, ValueError):
        info = None  # the client has better words for what is wrong
    if info is None:
        return describe([real, *options], of)
    settings = config.load()[0]
    return wanting(gather(info, address, settings["test_syscall"], of=of), settings)


def socket_address(options: Sequence["commandline.Option"], environment: Mapping[str, str]) -> str:
    """Return the socket that docker would use; empty: it is another way, or a context tells.

    The order is that of docker/cli cli/command/cli.go, resolveContextName().
    """
    given = dict(options)
    if "context" in given:
        return ""
    address = given.get("host") or environment.get("DOCKER_HOST")
    if address is None and (
        environment.get("DOCKER_CONTEXT") or _current_context(given, environment)
    ):
        return ""
    address = address or _DEFAULT
    return address if address.startswith(_UNIX) else ""


def get_info(path: str) -> dict[str, Any]:
    """Return the daemon's answer to GET /info. OSError, ValueError: there is none.

    Without http.client, whose import takes longer than all else here.
    """
    deadline = time.monotonic() + _SECONDS
    answer = b""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_SECONDS)
        client.connect(path)
        # HTTP/1.0: the answer is not in chunks and ends with the connection.
        client.sendall(b"GET /info HTTP/1.0\r\nHost: docker\r\n\r\n")
        while part := client.recv(65536):
            answer += part
            left = deadline - time.monotonic()
            if left <= 0 or len(answer) > _LONGEST:
                raise OSError("it answers too slowly, or too much")
            client.settimeout(left)
    head, _, body = answer.partition(b"\r\n\r\n")
    info = json.loads(body)
    if head.split()[1:2] != [b"200"] or not isinstance(info, dict):
        raise ValueError
    return info


def _current_context(given: Mapping[str, str | None], environment: Mapping[str, str]) -> bool:
    """Tell whether the client's settings name a context of the user's own."""
    home = os.path.join(environment.get("HOME", ""), ".docker")
    directory = given.get("config") or environment.get("DOCKER_CONFIG") or home
    try:
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
            return json.load(file).get("currentContext", "") not in ("", "default")
    except FileNotFoundError:
        return False
    except (OSError, ValueError, AttributeError):
        return True  # docker will tell what it makes of that
