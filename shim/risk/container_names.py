"""What engines call their containers: name, image, profile.

Asked of whoever knows: Docker's daemon over its socket, conmon's command line and the bundle beside
it for Podman and CRI-O, containerd's bundles. It is told, never acted upon, and all of it is taken
from children of ours that have a second or two and a limit of size: an engine that does not answer
leaves its containers without names. What belongs to a user is read with that user's rights.
"""

import json
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from shim import files, log, logread
from shim.errors import ShimError
from shim.host import processes
from shim.host.children import answer_of
from shim.risk.groups import Place
from shim.risk.monitors import monitor

if TYPE_CHECKING:
    from shim.engines.unixhttp import Connection

_SECONDS = 3
_ANSWER = 8 << 20
_LENGTH = 200
_ID, _SHORT = 64, 12
_SHORTEST_ID = 6  # of a container's, for what stands for all of it
_TOLD = ("name", "image", "profile", "pod")
_LOG_BYTES = 32 << 20
_CONTAINERD = (
    "/run/containerd/io.containerd.runtime.v2.task",
    "/run/k3s/containerd/io.containerd.runtime.v2.task",
)
# Who of the annotations says what: containerd's CRI, nerdctl, CRI-O.
_NAMES = ("io.kubernetes.cri.container-name", "nerdctl/name", "io.kubernetes.container.name")
_IMAGES = ("io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName")
_PODS = ("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name")
_KINDS = ("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType")


class Known(NamedTuple):
    """What an engine says of a container; empty where it says nothing."""

    name: str = ""
    image: str = ""
    profile: str = ""
    pod: str = ""
    engine: str = ""  # that says so
    mechanism: str = ""  # by which we adjusted it, as our own log says


class EngineRecords:
    """What is known of these containers; ``silent`` are engines that did not answer."""

    def __init__(self, places: Collection[Place]) -> None:
        self.silent: list[str] = []
        self._known: dict[Place, Known] = {}
        for user in {each.user for each in places}:
            of = [each for each in places if each.user == user]
            docker = [each for each in of if each.engine in ("docker", "")]
            monitored = [each for each in of if each.engine in ("podman", "cri-o")]
            bundled = [each for each in of if each.engine in ("containerd", "")]
            if docker:
                self._ask("docker", docker, partial(_docker, _docker_socket(user), user))
            if monitored:
                self._ask(monitored[0].engine, monitored, partial(_monitored, user))
            if bundled and not user:
                self._ask("containerd", bundled, _bundled)
        self._mechanisms = _mechanisms({each.ident for each in places})

    def known(self, place: Place) -> Known:
        """Return what is known of a container; of anything else its own name."""
        known = self._known.get(place, Known())
        name = known.name or _short(place)
        mechanism = self._mechanisms.get(place.ident, "")
        return known._replace(name=name, engine=known.engine or place.engine, mechanism=mechanism)

    def _ask(
        self,
        engine: str,
        places: list[Place],
        tell: "Callable[[list[str]], dict[str, dict[str, str]]]",
    ) -> None:
        """Have ``tell`` look up the ids in a child, within its limits."""
        idents = [each.ident for each in places]

        def work(writer: int) -> None:
            text = memoryview(json.dumps(tell(idents)).encode())
            while text:
                text = text[os.write(writer, text) :]

        try:
            told = json.loads(answer_of(work, _SECONDS, _ANSWER))
            for place in places:
                if of := told.get(place.ident):
                    name, about, profile, pod = (str(of.get(key, ""))[:_LENGTH] for key in _TOLD)
                    of_engine = place.engine or engine
                    self._known[place] = Known(name, about, profile, pod, of_engine)
        except (OSError, ValueError, TypeError, AttributeError):
            if any(each.engine for each in places):
                self.silent.append(engine)


def _short(place: Place) -> str:
    """Return what stands for a place that nobody has named."""
    if place.kind == "unit":
        return place.ident
    last = place.ident.rpartition("/")[2]
    return last[:_SHORT] if len(last) == _ID else last


def means(wanted: str, where: Place, known: Known) -> bool:
    """Tell whether ``wanted`` is this container's name, its id or the id's beginning."""
    if where.kind != "container":
        return False
    if wanted in (known.name, where.ident):
        return True
    return len(wanted) >= _SHORTEST_ID and where.ident.startswith(wanted)


def _docker_socket(user: int) -> str:
    """Return where a user's dockerd listens; root's where the environment says so."""
    if user:
        return f"/run/user/{user}/docker.sock"
    given = os.environ.get("DOCKER_HOST", "")
    return given.removeprefix("unix://") if given.startswith("unix://") else "/run/docker.sock"


def _docker(path: str, user: int, idents: list[str]) -> dict[str, dict[str, str]]:
    """Ask a dockerd: a user's with that user's rights, so that he has us ask nobody else."""
    from shim.engines.unixhttp import Connection

    with _socket_of(path, user) if user else nullcontext(path) as socket:
        return _said(Connection(socket, _SECONDS), idents)


@contextmanager
def _socket_of(path: str, user: int) -> Iterator[str]:
    """Have a path to the socket at ``path``, which is reached by no link and is the user's own."""
    from shim.host.untrusted_files import reach

    with reach(path, follow=False) as place:
        if place.control.barred or place.control.owner != user:
            raise OSError(f"is not of user {user}: {path}")
        with place.rights():
            fd = os.open(place.name, os.O_PATH | os.O_NOFOLLOW, dir_fd=place.directory)
            info = os.fstat(fd)
            if not stat.S_ISSOCK(info.st_mode) or info.st_uid != user:
                raise OSError(f"is no socket of user {user}: {path}")
            yield f"/proc/self/fd/{fd}"


def _said(connection: "Connection", idents: list[str]) -> dict[str, dict[str, str]]:
    """Return what a dockerd says of the containers of these ids."""
    told = {
        str(each["Id"]): {
            "name": str((each.get("Names") or [""])[0]).removeprefix("/"),
            "image": str(each.get("Image", "")),
        }
        for each in _get(connection, "/containers/json?all=1")
    }
    for ident in idents:
        if ident in told:
            told[ident]["profile"] = _docker_profile(_get(connection, f"/containers/{ident}/json"))
    return {ident: told[ident] for ident in idents if ident in told}


def _get(connection: "Connection", path: str) -> Any:
    connection.request("GET", path)
    return json.loads(connection.getresponse().read(_ANSWER))


def _docker_profile(container: dict[str, Any]) -> str:
    host = container.get("HostConfig", {})
    options = [str(each) for each in host.get("SecurityOpt") or ()]
    given = next((each[8:] for each in options if each.startswith(("seccomp=", "seccomp:"))), "")
    if given:
        return given if given in ("unconfined", "builtin") else "its own"
    return "unconfined (privileged)" if host.get("Privileged") else "the daemon's default"


def _monitored(user: int, idents: list[str]) -> dict[str, dict[str, str]]:
    """Ask the conmon of each container, a process of the container's user, and its bundle."""
    told: dict[str, dict[str, str]] = {}
    wanted = set(idents)
    for pid in processes.pids():
        found = monitor(pid)
        if not found or found.ident not in wanted or found.user != user:
            continue
        ident, bundle = found.ident, os.path.normpath(found.bundle)
        told[ident] = {"name": found.name}
        told[ident] |= _annotated(_json(f"{bundle}/config.json", user))
        told[ident] |= _stored(bundle, ident, user)
    return told


def _stored(bundle: str, ident: str, user: int) -> dict[str, str]:
    """Return what containers/storage has of a container: its image and its name."""
    top = os.path.dirname(os.path.dirname(bundle))
    for name in ("containers.json", "volatile-containers.json"):
        for each in _json(f"{top}/{name}", user, []):
            if isinstance(each, dict) and each.get("id") == ident:
                more = json.loads(each.get("metadata") or "{}")
                return {"image": str(more["image-name"])} if more.get("image-name") else {}
    return {}


def _bundled(idents: list[str]) -> dict[str, dict[str, str]]:
    """Look into containerd's bundles, which are root's alone."""
    told = {}
    for top in _CONTAINERD:
        for namespace in _listed(top):
            for ident in (each for each in idents if "/" not in each):
                path = f"{top}/{namespace}/{ident}/config.json"
                if os.path.exists(path):
                    told[ident] = _annotated(_json(path, 0))
    return told


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _annotated(config: Any) -> dict[str, str]:
    """Return what the annotations of a config.json say of its container."""
    notes = config.get("annotations") if isinstance(config, dict) else None
    if not isinstance(notes, dict):
        return {}

    def of(keys: Iterable[str]) -> str:
        return next((str(notes[key]) for key in keys if notes.get(key)), "")

    name = of(_NAMES) or ("the pod's sandbox" if of(_KINDS) == "sandbox" else "")
    found = {"name": name, "image": of(_IMAGES), "pod": of(_PODS)}
    return {key: value for key, value in found.items() if value}


def _json(path: str, user: int, otherwise: Any = None) -> Any:
    """Read a file that is ``user``'s or root's, reached by a way that is nobody else's."""
    from shim.host.untrusted_files import reach

    try:
        with reach(path) as place:
            author = place.author
            if place.info is None or author.barred or author.owner not in (None, user):
                return otherwise
            return json.loads(place.read(_ANSWER))
    except (OSError, ValueError, ShimError):
        return otherwise


def _mechanisms(idents: Collection[str]) -> dict[str, str]:
    """Return by which mechanism we adjusted containers, as far back as the log is short."""
    found: dict[str, str] = {}
    wanted = {each for each in idents if each}
    try:
        for line in _lines(log.path(make=False)):
            if b'"adjusted"' not in line:
                continue
            event = json.loads(line)
            if event["event"] == "adjusted" and event.get("container") in wanted:
                found.setdefault(event["container"], str(event.get("mechanism", "")))
                if len(found) == len(wanted):
                    break
    except (OSError, ValueError, LookupError, TypeError, ShimError):
        pass  # without a log nothing is known
    return found


def _lines(path: str) -> Iterator[bytes]:
    left = _LOG_BYTES
    with open(files.open_regular(path), "rb") as file:
        for line in logread.backwards(file, _LOG_BYTES):
            left -= len(line) + 1
            if left < 0:
                return
            yield line
