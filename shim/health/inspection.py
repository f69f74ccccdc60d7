"""A look at the host: its engines, and containers under the profiles that change."""

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from shim.catalog import kernel_injected
from shim.errors import ShimError, printable
from shim.health import docker, grpc, podman, runtimes
from shim.health.calls import Observation, expected
from shim.health.trials import Trial
from shim.host.runtimes import about, find, knows

_ANSWER_SECONDS = 10
_START_SECONDS = 20
_RUNTIMES = ("runc", "crun")

Inspection = dict[str, Any]
_Version = Callable[[str, float], str]


def before(trials: Sequence[Trial], not_tried: int) -> Inspection:
    """Look at engines, and at containers under the old profiles; nothing is expected of them."""
    tried = [_container(path, one.name, _try(path, one.before), {}) for path, one in _pairs(trials)]
    defaults = [_container(how, "", seen, {}) for how, seen in _defaults()]
    return _inspected([*tried, *defaults], not_tried)


def after(trials: Sequence[Trial], not_tried: int, earlier: Inspection) -> Inspection:
    """Look at engines, and at containers under the new profiles, and say what they should be."""
    known = {(each["how"], each["profile"]): _verdicts(each) for each in earlier["containers"]}
    containers = []
    for path, one in _pairs(trials):
        seen = _try(path, one.after)
        allowed, free = _promised(path, one.allowed), one.lost
        was = known.get((path, one.name), {})
        wanted = expected(seen.verdicts, was, allowed=allowed, free=free)
        containers.append(_container(path, one.name, seen, wanted))
    for how, seen in _defaults():
        # A daemon reads its profile when it starts: the old verdict is as right as the new one.
        wanted = expected(seen.verdicts, known.get((how, ""), {}), allowed=())
        containers.append(_container(how, "", seen, wanted))
    return _inspected(containers, not_tried)


def present() -> list[str]:
    """Return the runtimes that containers can be tried with."""
    return [path for path in map(find, _RUNTIMES) if path]


def engines(environment: Mapping[str, str] = os.environ) -> list[dict[str, Any]]:
    """Ask each engine that is there."""
    return [_engine(name, ask, place) for name, ask, place in _places(environment)]


def _inspected(containers: list[dict[str, Any]], not_tried: int) -> Inspection:
    return {"engines": engines(), "containers": containers, "not_tried": not_tried}


def _pairs(trials: Sequence[Trial]) -> Iterator[tuple[str, Trial]]:
    return ((path, each) for path in present() for each in trials)


def _defaults() -> Iterator[tuple[str, Observation]]:
    """Start a container by each engine that can be asked for one."""
    path = docker.place(os.environ)
    if _is_socket(path):
        yield "docker", _safely(docker.observe, path)
    if path := podman.place():
        yield "podman", _safely(podman.observe, path)


def _try(path: str, seccomp: dict[str, Any] | None) -> Observation:
    return _safely(partial(runtimes.observe, seccomp=seccomp), path)


def _safely(observe: Callable[..., Observation], path: str) -> Observation:
    """Look; where there is no space for it, that is what is seen."""
    try:
        return observe(path, seconds=_START_SECONDS)
    except (OSError, ShimError) as error:
        return Observation(False, printable(str(error)), {})


def _promised(path: str, allowed: Collection[str]) -> list[str]:
    """Return those of the allowed calls whose names the libseccomp of the runtime knows."""
    version = about(path).libseccomp
    calls = kernel_injected()
    return [name for name in allowed if knows(version, calls[name].libseccomp)]


def _container(
    how: str, profile: str, seen: Observation, wanted: Mapping[str, str]
) -> dict[str, Any]:
    calls = {
        name: {"verdict": verdict, "expected": wanted.get(name, "")}
        for name, verdict in seen.verdicts.items()
    }
    told = {"started": seen.started, "reason": seen.reason, "calls": calls}
    return {"how": how, "profile": profile, **told}


def _verdicts(container: Mapping[str, Any]) -> dict[str, str]:
    return {name: call["verdict"] for name, call in container["calls"].items()}


def _places(environment: Mapping[str, str]) -> Iterator[tuple[str, _Version, str]]:
    sockets: tuple[tuple[str, _Version, str], ...] = (
        ("docker", docker.version, docker.place(environment)),
        ("containerd", grpc.version, environment.get("CONTAINERD_ADDRESS", grpc.CONTAINERD)),
        ("cri-o", grpc.version, grpc.CRIO),
    )
    yield from (each for each in sockets if _is_socket(each[2]))
    if path := podman.place():
        yield "podman", podman.version, path


def _engine(name: str, ask: _Version, place: str) -> dict[str, Any]:
    try:
        return {"engine": name, "answers": True, "said": printable(ask(place, _ANSWER_SECONDS))}
    except TimeoutError:
        said = f"no answer in {_ANSWER_SECONDS} seconds"
    except (OSError, ShimError) as error:
        said = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return {"engine": name, "answers": False, "said": printable(said)}


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
