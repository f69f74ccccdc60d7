"""What CRI-O's configuration says, put together as CRI-O does; and what the running one has.

CRI-O reads crio.conf, then all files below crio.conf.d, whatever their names, in the order of
filepath.Walk, each on top of what was read before; a handler's table replaces the one that was
there (pkg/config/config.go of 1.37, UpdateFromPath). No CRI-O has run with this here: Debian has
none.
"""

import contextlib
import itertools
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shim import files
from shim.engines import toml, unixhttp
from shim.engines.registration import Host, executable
from shim.engines.registration.changes import content
from shim.host import processes

NAME = "seccomp-shim"
DIRECTORY = "/etc/crio"
# The second sorts behind whatever begins with a digit.
DROP_INS = ("crio.conf.d/99-seccomp-shim.conf", "crio.conf.d/zz-seccomp-shim.conf")
TABLE = ("crio", "runtime")
HOOKS = "/etc/containers/oci/hooks.d"
SOCKET = "/var/run/crio/crio.sock"
_SECONDS = 20
_PLATFORM = "linux/amd64"
# What CRI-O's packages bring is not on PATH.
PACKAGED = "/usr/libexec/crio"
_STORES = ("/run/containers/storage", "/var/lib/containers/storage")
_CONFIG_LIMIT = 1 << 20
_HANDLER = "io.kubernetes.cri-o.RuntimeHandler"


def paths(host: Host) -> list[Path]:
    """Return the places that a file of our own may have."""
    return [host.path(DIRECTORY) / each for each in DROP_INS]


def read(host: Host, ours: Mapping[Path, bytes] | None = None) -> dict[str, Any]:
    """Return the table crio.runtime with these files of ours, or without any."""
    ours = ours or {}
    directory = host.path(DIRECTORY)
    there = {*_walked(directory / "crio.conf.d")} - {*paths(host)}
    merged: dict[str, Any] = {}
    for path in [directory / "crio.conf", *sorted({*there, *ours}, key=lambda path: path.parts)]:
        data = ours[path] if path in ours else content(path)
        found = runtime(toml.parse(data, str(path)), path) if data is not None else {}
        handlers = {**merged.get("runtimes", {}), **found.get("runtimes", {})}
        merged |= found | ({"runtimes": handlers} if handlers else {})
    return merged


def behind(path: Path, key: str) -> list[str]:
    """Return the files that are read after ``path`` and name ``key``."""
    later = (each for each in _walked(path.parent) if each.parts > path.parts)
    return [str(each) for each in later if key.encode() in (content(each) or b"")]


def runtime(document: dict[str, Any], where: Path) -> dict[str, Any]:
    """Return the table crio.runtime of a document."""
    table = dict(toml.a_table(document, TABLE, where))
    if "runtimes" in table:
        found = toml.a_table(table, ("runtimes",), where)
        table["runtimes"] = {name: toml.a_table(found, (name,), where) for name in found}
    if "hooks_dir" in table:
        table["hooks_dir"] = toml.a_list(table, "hooks_dir", where)
    return table


def our_handlers(document: dict[str, Any]) -> dict[str, str]:
    """Return the handlers that call an executable of ours, with it."""
    handlers = toml.look_up(document, (*TABLE, "runtimes")) or {}
    found = {name: toml.look_up(each, ("runtime_path",)) for name, each in handlers.items()}
    return {name: str(program) for name, program in found.items() if executable.is_ours(program)}


def said(runtime: dict[str, Any], key: str) -> Any:
    """Return a value of the table; ``runtimes/NAME`` is a handler's program."""
    if key.startswith("runtimes/"):
        return toml.look_up(runtime, (*key.split("/", 1), "runtime_path"))
    return runtime.get(key)


def handler(
    name: str, handlers: Mapping[str, Any], default: str, host: Host
) -> tuple[dict[str, Any], str]:
    """Return what a handler has but for its program, and the path of that as CRI-O finds it.

    Left out is what would have CRI-O call another program than the one that is named
    (``platform_runtime_paths``, ``inherit_default_runtime``). One that no file has is built in.
    """
    table = dict(handlers[name]) if name in handlers else _built_in(name, host)
    inherits = table.pop("inherit_default_runtime", False)
    if inherits and name != default:
        inherited, program = handler(default, handlers, default, host)
        taken = ("runtime_type", "runtime_config_path", "runtime_root")
        table |= {key: inherited[key] for key in taken if key in inherited}
    else:
        program = str(table.get("runtime_path") or "")
    table.pop("runtime_path", None)
    program = str((table.pop("platform_runtime_paths", None) or {}).get(_PLATFORM) or program)
    packaged = f"{PACKAGED}/{name}"
    if not program:
        program = host.program(name) or (packaged if host.path(packaged).exists() else name)
    return table, program


def running(host: Host) -> dict[str, Any] | None:
    """Return the table crio.runtime as the running CRI-O has it; None: it cannot be asked."""
    with contextlib.suppress(ValueError):
        if answer := unixhttp.get(str(host.path(SOCKET)), "/config", _SECONDS):
            return runtime(tomllib.loads(answer.decode()), Path(SOCKET))
    return None


def started(host: Host) -> dict[str, str]:
    """Return the running containers that were started by our executables: by id, which one.

    CRI-O's monitor of a container is told its program.
    """
    found = {}
    proc = str(host.path("/proc"))
    for pid in processes.pids(proc):
        with contextlib.suppress(OSError):  # ended meanwhile
            program, *words = processes.command_line(pid, proc)
            # Anybody can call a program of his conmon.
            if os.path.basename(program) != "conmon" or not processes.is_roots(pid, proc):
                continue
            ours = next(filter(executable.is_ours, words), "")
            # Podman's own has an --exit-command; Podman passes over a program that is gone.
            podmans = "--exit-command" in words
            if ours and not podmans:
                options = dict(itertools.pairwise(words))
                found[options.get("-c") or options.get("--cid") or str(pid)] = ours
    return found


def pods(host: Host) -> list[str] | None:
    """Return the ids of the pods that asked for our handler; None: nothing is kept of any pod.

    What CRI-O keeps of a pod, running or not, names its handler (server/sandbox_run_linux.go).
    """
    found, seen = set(), False
    for store in _STORES:
        for file in host.path(store).glob("*-containers/*/userdata/config.json"):
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                handler = json.loads(files.read(str(file), _CONFIG_LIMIT))["annotations"][_HANDLER]
                seen = True
                if handler == NAME:
                    found.add(file.parent.parent.name)
    return sorted(found) if seen else None


def _walked(directory: Path) -> Iterator[Path]:
    for each in sorted(directory.iterdir()) if directory.is_dir() else ():
        if each.is_dir() and not each.is_symlink():
            yield from _walked(each)
        else:
            yield each


def _built_in(name: str, host: Host) -> dict[str, Any]:
    """Return what CRI-O's own handler ``name`` has that no file shows.

    ``crio config --default`` prints it, in comments (pkg/config/template.go). Where that cannot be
    asked: the values of 1.37, with the annotations' names that older ones know as well, since CRI-O
    does not start over one that it does not know.
    """
    said = re.sub(r"(?m)^# ?", "", host.run("crio", "config", "--default").stdout)
    header = f"[crio.runtime.runtimes.{name}]\n"
    if header in said:
        table = re.split(r"(?m)^\[", said.partition(header)[2])[0]
        found: dict[str, Any] = {"runtime_root": f"/run/{name}"}
        for key, pattern in _VALUES.items():
            if value := re.search(rf"(?m)^{key} = ({pattern})", table):
                found |= tomllib.loads(f"{key} = {value[1]}")
        return {key: value for key, value in found.items() if value not in ("", [])}
    if name != "crun":
        return {"runtime_root": f"/run/{name}"}
    return {
        "runtime_root": "/run/crun",
        "container_min_memory": "500KiB",
        "allowed_annotations": ["io.containers.trace-syscall", "io.kubernetes.cri-o.Devices"],
    }


_TEXT = r'"[^"\n]*"'
_VALUES = {
    "runtime_root": _TEXT,
    "container_min_memory": _TEXT,
    "monitor_path": _TEXT,
    "monitor_cgroup": _TEXT,
    "allowed_annotations": r"\[[^\]]*\]",
    "monitor_env": r"\[[^\]]*\]",
}
