"""Docker by its socket alone: whether it answers, and a container as it makes them by default.

No docker command is needed, and none that somebody has put in its place is asked.
"""

import http.client
import io
import json
import re
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

from shim.engines import oci, unixhttp
from shim.errors import ShimError, printable
from shim.health.calls import Observation, observed
from shim.host import processes

_SOCKET = "/var/run/docker.sock"
_UNIX = "unix://"
_CLEAN_SECONDS = 10
NAMED = re.compile("seccomp-shim-look-[0-9a-f]{8}")
# What runs in an engine's container; long enough to be looked at, and never much longer.
SLEEP = ["/usr/bin/sleep", "60"]


def place(environment: Mapping[str, str]) -> str:
    """Return the path of this host's daemon's socket; DOCKER_HOST can name another one."""
    named = environment.get("DOCKER_HOST", "")
    return named.removeprefix(_UNIX) if named.startswith(_UNIX) else _SOCKET


def version(path: str, seconds: float) -> str:
    """Ask the daemon for its version. OSError, ShimError: it does not answer, or with an error."""
    return str(info(path, seconds)["ServerVersion"])


def info(path: str, seconds: float) -> dict[str, Any]:
    """Return what the daemon says of itself. OSError, ShimError: nothing, or it is none."""
    try:
        told = json.loads(_ask(path, "GET", "/info", time.monotonic() + seconds))
    except ValueError:
        told = {}
    if not isinstance(told, dict) or "ServerVersion" not in told:
        raise ShimError("what answers is no Docker daemon")
    return told


def observe(path: str, seconds: float) -> Observation:
    """Start a container with the daemon's default profile and look at its filter."""
    deadline = time.monotonic() + seconds
    try:
        with started(path, seconds, SLEEP) as (pid, _):
            running(pid, "sleep", deadline)
            return observed(pid)
    except (OSError, ShimError, ValueError, LookupError) as error:
        return Observation(False, printable(NAMED.sub("...", str(error)))[:300], {})


@contextmanager
def started(
    path: str, seconds: float, command: Sequence[str], asked: Mapping[str, Any] | None = None
) -> Iterator[tuple[int, Callable[[], int | None]]]:
    """Run ``command``, of the host's /usr, in a container with all the daemon's defaults.

    ``asked`` is what its HostConfig has in place of them.
    Yield its process and what tells its exit status, None while it runs. It is gone afterwards.
    OSError, ShimError, ValueError, LookupError: it did not start.
    """
    deadline = time.monotonic() + seconds
    name = f"seccomp-shim-look-{uuid.uuid4().hex[:8]}"

    def code() -> int | None:
        state = json.loads(_ask(path, "GET", f"/containers/{name}/json", deadline))["State"]
        return None if state["Running"] else int(state["ExitCode"])

    try:
        yield _start(path, name, command, deadline, asked or {}), code
    finally:
        for url in (f"/containers/{name}?force=1&v=1", f"/images/{name}?force=1"):
            with suppress(OSError, ShimError):
                _ask(path, "DELETE", url, time.monotonic() + _CLEAN_SECONDS)


def running(pid: int, program: str, deadline: float) -> None:
    """Wait until process ``pid`` is the container's own program. TimeoutError; ShimError: ended."""
    while True:
        try:
            if processes.name(pid) == program:
                return
        except (FileNotFoundError, ProcessLookupError):
            raise ShimError("the container has ended at once") from None
        if time.monotonic() > deadline:
            raise TimeoutError("it takes too long")
        time.sleep(0.01)


def _start(
    path: str, name: str, command: Sequence[str], deadline: float, asked: Mapping[str, Any]
) -> int:
    image = urlencode({"fromSrc": "-", "repo": name, "tag": "latest"})
    said = _ask(path, "POST", f"/images/create?{image}", deadline, _image(), "application/x-tar")
    if b'"errorDetail"' in said:
        raise ShimError(f"the image cannot be made: {said.decode(errors='replace').strip()}")
    wanted = {
        "Image": name,
        "Entrypoint": list(command),
        "NetworkDisabled": True,
        "HostConfig": {
            "Binds": ["/usr:/usr:ro"],
            "Init": False,
            "LogConfig": {"Type": "none"},
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            **asked,
        },
    }
    body = json.dumps(wanted).encode()
    _ask(path, "POST", f"/containers/create?name={name}", deadline, body)
    _ask(path, "POST", f"/containers/{name}/start", deadline)
    state = json.loads(_ask(path, "GET", f"/containers/{name}/json", deadline))["State"]
    return int(state["Pid"])


def _image() -> bytes:
    """Make an image of empty directories and links into the host's /usr, which is bound into it."""
    data = io.BytesIO()
    with TemporaryDirectory(prefix="seccomp-shim-look-") as directory:
        bundle = oci.bundle(Path(directory), None, [])
        with tarfile.open(fileobj=data, mode="w") as archive:
            archive.add(bundle / "rootfs", ".")
    return data.getvalue()


def _ask(
    path: str,
    method: str,
    url: str,
    deadline: float,
    body: bytes = b"",
    form: str = "application/json",
) -> bytes:
    """Return the daemon's answer. OSError: there is none in time; ShimError: it is an error.

    DOCKER_HOST can name anybody's socket: whoever answers is waited for and believed so far.
    """
    connection = unixhttp.Connection(path, deadline - time.monotonic())
    try:
        connection.request(method, url, body, {"Content-Type": form})
        answer = connection.getresponse()
        data = answer.read(unixhttp.LONGEST + 1)
    except http.client.HTTPException:
        raise ShimError("what answers speaks no HTTP") from None
    finally:
        connection.close()
    if len(data) > unixhttp.LONGEST:
        raise ShimError("it answers more than anybody would read")
    if answer.status >= 300:
        raise ShimError(_message(data) or f"it answers {answer.status} {answer.reason}")
    return data


def _message(data: bytes) -> str:
    try:
        found: Any = json.loads(data)["message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(found)
