"""How an engine is asked for a container without the shim, and for one with it.

Nothing of its configuration is changed for that: a side for which it would have to be is told.
"""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

from shim.engines import demonstration
from shim.engines.docker import builtin
from shim.engines.docker import config as daemonjson
from shim.engines.docker.choose import RUNTIME
from shim.engines.podman import config as podmanconf
from shim.engines.registration import executable, this_host
from shim.engines.service import status_or_problem
from shim.errors import ShimError
from shim.health import containerd, docker, podman
from shim.host.runtimes import find

_SECONDS = 60
_OUR_PROFILE = "/seccomp-shim/profiles/docker-"
_PLAIN = ("runc", "io.containerd.runc.v2")  # Docker has both by itself, the second from 23 on


class Started(Protocol):
    """What runs a command in a container and yields its process and what tells its end."""

    def __call__(self, *, command: list[str]) -> AbstractContextManager[Any]:
        """Run ``command``."""


class Startable(NamedTuple):
    """A side that the engine is asked for: ``by`` is the runtime that it then starts it by."""

    by: str
    started: Started


class Unasked(NamedTuple):
    """A side that the engine makes only with another configuration; ``why`` says what is missing.

    What it is asked for and does not make is an error instead: ShimError, OSError.
    """

    why: str


Sides = tuple[Startable | Unasked, Startable | Unasked]


@contextmanager
def of(engine: str) -> Iterator[Sides]:
    """Yield the two sides of an engine; what is made for them is there until then."""
    with TemporaryDirectory(prefix="seccomp-shim-prove-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield {"docker": _docker, "podman": _podman, "containerd": _containerd}[engine](directory)


def _docker(directory: Path) -> Sides:
    del directory  # a runtime of Docker's is one that its daemon has registered
    place = docker.place(os.environ)
    info = docker.info(place, _SECONDS)
    runtimes = info.get("Runtimes") or {}
    default = str(info.get("DefaultRuntime") or "runc")
    our_profile = _OUR_PROFILE in ",".join(map(str, info.get("SecurityOptions") or []))

    def asked(name: str, **more: Any) -> Startable:
        config = {"Runtime": name, **more}
        return Startable(name, partial(docker.started, place, _SECONDS, asked=config))

    ours = [name for name in (RUNTIME, default, *runtimes) if _is_ours(runtimes, name)]
    plain = [name for name in (default, *_PLAIN) if name in runtimes and name not in ours]
    without: Startable | Unasked
    if not plain:
        without = Unasked("every runtime that Docker has calls seccomp-shim")
    elif not our_profile:
        without = asked(plain[0])
    else:
        document, why = builtin.profile(str(info["ServerVersion"]))
        if document is None:
            without = Unasked(
                f"Docker's default profile is seccomp-shim's, its own not known: {why}"
            )
        else:
            own = json.dumps(document.tree)
            without = asked(plain[0], SecurityOpt=[f"seccomp={own}"])
    if ours:
        return without, asked(ours[0])
    if our_profile:
        return without, asked(default)
    return without, Unasked("not registered: seccomp-shim install docker")


def _is_ours(runtimes: dict[str, Any], name: str) -> bool:
    return daemonjson.is_ours(runtimes.get(name))


def _podman(directory: Path) -> Sides:
    path = podman.place()
    if not path:
        raise ShimError("podman is not on PATH")
    host = this_host()
    now = podman.runtime(path, _SECONDS)
    conf = podmanconf.read(podmanconf.folder_of(host), host)
    real: str | None = now
    if executable.is_ours(now):
        name = os.path.basename(now).removeprefix("seccomp-shim-")
        real = executable.real_of(Path(now)) or podmanconf.real(name, conf, host)
    if not real:
        return Unasked(f"what {now} stands in front of is not found"), _by_podman(path, now)
    words = ["--runtime", real]
    hooks = status_or_problem("podman", host).way == "hooks"
    if hooks:
        (directory / "hooks").mkdir()
        others = conf.engine.get("hooks_dir", podmanconf.HOOKS_DEFAULT)
        found = [each for each in others if os.path.isdir(each)] or [f"{directory}/hooks"]
        words += [word for each in found for word in ("--hooks-dir", each)]
    without = _by_podman(path, real, words)
    if real != now or hooks:
        return without, _by_podman(path, now)
    wrapper = str(demonstration.wrapper(directory, directory / "audit.jsonl", real))
    shown = f"seccomp-shim in front of {real}"
    return without, _by_podman(path, shown, ["--runtime", wrapper])


def _by_podman(path: str, by: str, words: list[str] | None = None) -> Startable:
    return Startable(by, partial(podman.started, path, _SECONDS, asked=words or []))


def _containerd(directory: Path) -> Sides:
    place = containerd.place(os.environ)
    started = partial(containerd.started, place, _SECONDS)
    without = Startable("runc", started)
    real = find("runc")
    if not real:
        return without, Unasked("runc is not on PATH")
    wrapper = str(demonstration.wrapper(directory, directory / "audit.jsonl", real))
    words = ["--runc-binary", wrapper]
    return without, Startable(f"seccomp-shim in front of {real}", partial(started, asked=words))
