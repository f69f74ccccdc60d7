"""What Podman's files say of us, and whether another one overrules them."""

import argparse
import os
from typing import Any

from shim.engines import toml
from shim.engines.podman import config
from shim.engines.podman.config import DROP_IN, HOOKS, RUNTIMES, Conf
from shim.engines.registration import Coverage, Host, executable, hooks_dir
from shim.engines.registration.changes import content
from shim.engines.registration.status import EngineStatus


class PodmanStatus(EngineStatus):
    """Podman's: no daemon of its own has anything in memory."""

    DOCUMENT = (
        "engine present registered entries default covers not_covered covers_all running known "
        "problems notes way"
    )


def status(options: argparse.Namespace, host: Host) -> EngineStatus:
    """Tell what our drop-in file says, and whether another one overrules it."""
    del options
    directory = config.folder_of(host)
    path = directory / DROP_IN
    data = content(path)
    engine = config.engine_of(toml.parse(data, str(path)), path) if data is not None else {}
    entries = hooks_dir.entries(directory / HOOKS, host)
    for name, paths in engine.get("runtimes", {}).items():
        entries += executable.entries(host, path, name, paths[0])
    way = "runtime" if "runtimes" in engine else "hooks" if entries else None
    meaning = "podman takes the next path" if "runtimes" in engine else "podman leaves it out"
    problems = [
        f"{each.file}: {each.path} is not there: {meaning}" for each in entries if not each.exists
    ]
    conf = config.read(directory, host)
    problems += [f"{each} overrules {path}" for each in config.overruling(engine, conf, directory)]
    precreate = any(each.name == "seccomp-shim-precreate" for each in entries)
    return PodmanStatus(
        engine="podman",
        present=host.program("podman") is not None,
        registered=bool(entries),
        entries=entries,
        coverage=coverage(engine.get("runtimes", {}), precreate, conf, host),
        problems=problems,
        way=way,
    )


def coverage(table: dict[str, Any], precreate: bool, conf: Conf, host: Host) -> Coverage:
    """Return what is covered: by the names in ``table`` or, where it is empty, by hooks."""
    if not table:
        # Exec starts from what the runtime keeps: the configuration that precreate has changed.
        kept = "; exec where crun runs them, or a runtime that knows the calls' names"
        return Coverage(
            f"containers and pods, from their next start on{kept if precreate else ''}",
            f"{'any other exec' if precreate else 'exec'}; podman build",
            plain=True,
        )
    here = [name for name in RUNTIMES if config.real(name, conf, host) is not None]
    asked = [os.path.basename(str(conf.engine.get("runtime", "")))]
    if set(asked if asked[0] else here) <= table.keys():
        return Coverage(
            "containers and pods, from their next start on, exec into them, and podman build",
            "those of podman --runtime with a path, or with another name than "
            + " and ".join(table),
            plain=True,
        )
    return Coverage(
        f"only containers and pods of {' and '.join(f'--runtime {name}' for name in table)}",
        "those without it",
        plain=False,
    )
