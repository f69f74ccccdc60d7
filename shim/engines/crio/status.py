"""What CRI-O's drop-in file says of us, whether it holds, and what the running CRI-O has read."""

import argparse
from typing import Any

from shim.engines import toml
from shim.engines.crio import config
from shim.engines.crio.config import HOOKS, NAME
from shim.engines.registration import Coverage, Host, executable, hooks_dir
from shim.engines.registration.changes import content
from shim.engines.registration.status import EngineStatus

BY_HOOKS = Coverage("all pods, whatever their handler", "exec into them", plain=True)


class CrioStatus(EngineStatus):
    """CRI-O's."""

    DOCUMENT = (
        "engine present registered entries default in_use covers not_covered covers_all unseen "
        "running known problems notes way"
    )


def status(options: argparse.Namespace, host: Host) -> EngineStatus:
    """Tell what our drop-in file says, whether it holds, and what the running CRI-O has read."""
    del options
    entries = hooks_dir.entries(host.path(HOOKS), host)
    ours = {path: data for path in config.paths(host) if (data := content(path)) is not None}
    meant: dict[str, Any] = {}
    for path, data in ours.items():
        document = toml.parse(data, str(path))
        runtime = config.runtime(document, path)
        for name, program in config.our_handlers(document).items():
            entries += executable.entries(host, path, name, program)
            meant[f"runtimes/{name}"] = program
        if runtime.get("default_runtime") == NAME:
            meant["default_runtime"] = NAME
        if HOOKS in runtime.get("hooks_dir", []):
            meant["hooks_dir"] = runtime["hooks_dir"]
    problems = [f"{e.file}: {e.path} is not there" for e in entries if not e.exists]
    file = config.read(host, ours)
    for key, value in meant.items():
        if config.said(file, key) != value:
            named = config.behind(next(iter(ours)), key.rpartition("/")[2])
            problems.append(f"{', '.join(named)}: {key} is something else: it is read after ours")
    running = config.running(host)
    now = {
        k: v for k in (*meant, *_seen(running)) if (v := config.said(running or {}, k)) is not None
    }
    if running is not None and any(now.get(key) != value for key, value in meant.items()):
        problems.append("the running CRI-O has not read its files since: restart it when it suits")
    elif running is not None and not now.keys() <= meant.keys():
        problems.append("the running CRI-O has what was taken out until it is restarted")
    handlers = [key for key in meant if key.startswith("runtimes/")]
    hooks = "hooks_dir" in meant
    names = [key.partition("/")[2] for key in handlers]
    covers = BY_HOOKS if hooks else executable.coverage(names, default="default_runtime" in meant)
    return CrioStatus(
        engine="crio",
        present=host.program("crio") is not None,
        registered=bool(entries),
        entries=entries,
        default=bool(entries) and config.said(file, "default_runtime") == NAME,
        in_use=bool(entries or _seen(running) or config.started(host)),
        coverage=covers,
        unseen=executable.unseen("CRI-O") if host.program("crio") and running is None else [],
        running=None if running is None else True,
        known=None if running is None else not problems,
        problems=problems,
        way="runtime" if handlers else "hooks" if hooks else None,
    )


def _seen(running: dict[str, Any] | None) -> list[str]:
    """Return what the running CRI-O has of us."""
    if running is None:
        return []
    found = [f"runtimes/{name}" for name in config.our_handlers({"crio": {"runtime": running}})]
    if running.get("default_runtime") == NAME:
        found.append("default_runtime")
    return [*found, "hooks_dir"] if HOOKS in running.get("hooks_dir", []) else found
