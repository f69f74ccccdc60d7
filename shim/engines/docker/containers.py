"""Which containers need the entries that an uninstall takes out of daemon.json.

A container keeps the name of its runtime, and a running one the program too: for an entry with
``runtimeArgs`` that is a script of dockerd's own, in its data root's directory ``runtimes``. 20.10
deletes it at the SIGHUP after the entry has gone or has lost its arguments; 26.1 and 28.5, which
name it by its content, leave it there (measured). With the script gone containerd-shim can start
no process in the container, cannot stop it, and stays.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from shim.engines.docker import config as daemonjson
from shim.engines.docker import dockerd
from shim.engines.docker.choose import RUNTIME
from shim.engines.docker.installation import Installation
from shim.engines.registration import Host
from shim.errors import ShimError, counted

_SHOWN = 5
_BREAK = (
    "these run by a script that dockerd deletes when it has read the file again or is restarted: "
    "no docker exec works in them any more, docker stop hangs or leaves a containerd-shim behind, "
    "and until that is killed they do not start"
)


class DockerContainer(NamedTuple):
    """A container that is there, by the name of its runtime."""

    name: str
    runtime: str
    running: bool


def refusal(docker: Installation, host: Host, *, force: bool) -> list[str]:
    """Return what becomes of the containers of our entries. ShimError: not without ``force``."""
    fronted = daemonjson.fronted(docker.config)
    ours = [RUNTIME] if daemonjson.is_ours(docker.config.runtimes.get(RUNTIME)) else []
    there = containers(docker, host, {*ours, *fronted})
    notes, hints = [], []
    if own := [each for each in there if each.runtime == RUNTIME]:
        were = counted(len(own), "container was", "containers were")
        notes.append(
            f"{were} created with the runtime {RUNTIME} and would not start again: {_shown(own)}"
        )
        hints.append("recreate or remove them")
    for name in fronted:
        if of_it := [each for each in there if each.runtime == name]:
            have = counted(len(of_it), "container has", "containers have")
            notes.append(
                f"{have} the runtime {name}, of which the wrapper is taken out: {_shown(of_it)}"
            )
            hints.append(
                f"stop those of {name} that run (docker stop); stopped ones start by {name} itself "
                "afterwards"
            )
    if broken := _losing_script(docker, there):
        notes.append(f"{_BREAK}: {_shown(broken, state=False)}")
    if notes and not force:
        raise ShimError("; ".join(notes), hint=f"{'; '.join(hints)}; then, or at once, --force")
    return notes


def refuse_lost_script(docker: Installation, host: Host, runtime: str) -> None:
    """Refuse that an entry loses its arguments. ShimError: containers run by them."""
    if broken := _losing_script(docker, containers(docker, host, {runtime})):
        raise ShimError(
            f"the runtime {runtime} would lose its arguments, and {_BREAK}: "
            f"{_shown(broken, state=False)}",
            subject=str(docker.path),
            hint="stop them first",
        )


def _losing_script(docker: Installation, there: Sequence[DockerContainer]) -> list[DockerContainer]:
    """Return the running containers whose entry is in a script, as it is now."""
    known = docker.config.runtimes
    return [e for e in there if e.running and known.get(e.runtime, {}).get("runtimeArgs")]


def containers(
    docker: Installation, host: Host, runtimes: Collection[str]
) -> list[DockerContainer]:
    """Return the containers of these runtimes, running or not."""
    found = []
    for path in sorted(_data_root(docker, host).glob("containers/*/hostconfig.json")):
        try:
            runtime = json.loads(path.read_bytes()).get("Runtime")
            if runtime in runtimes:
                told = json.loads((path.parent / "config.v2.json").read_bytes())
                name = str(told.get("Name", path.parent.name)).removeprefix("/")
                found.append(DockerContainer(name, runtime, bool(told["State"]["Running"])))
        except (OSError, ValueError, AttributeError, LookupError, TypeError):
            continue  # removed meanwhile
    return sorted(found, key=lambda each: not each.running)


def _shown(found: Sequence[DockerContainer], *, state: bool = True) -> str:
    names = [f"{each.name} (running)" if state and each.running else each.name for each in found]
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _data_root(docker: Installation, host: Host) -> Path:
    for daemon in docker.daemons:
        if root := (dockerd.info(daemon) or {}).get("DockerRootDir"):
            return Path(root)
    given = [
        value for flags in docker.flags for value in flags.values("--data-root", "-g", "--graph")
    ]
    return host.path(docker.config.tree.get("data-root") or "".join(given[:1]) or "/var/lib/docker")
