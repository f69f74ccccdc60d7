"""Podman, as root and rootless: the wrapper in the place of runc and crun, or hooks.

Podman keeps of a container the *name* of its runtime, and knows by that name what the runtime can
do. So the names stay, and the wrapper becomes the first of each name's paths: containers that are
there already, pods, ``exec`` and ``build`` go through it, and where it is gone Podman takes the
next path. Files of containers.conf.d are read from Podman 3.3 on, in the order of their names.

For root the system's configuration is changed, which rootless containers have, too; for any other
user that user's own.
"""

import argparse
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from shim.catalog import kernel_injected
from shim.engines import toml
from shim.engines.changes import content, edit
from shim.engines.registration import Host, Plan, dropin, hooksd
from shim.errors import ShimError
from shim.host.runtime import knows, libseccomp_version

DROP_IN = "containers.conf.d/99-seccomp-shim.conf"
# Not hooks.d: CRI-O may read that, and refuses to start over an entry for the stage precreate.
HOOKS = "oci/podman-hooks.d"
SYSTEM = ("/usr/share/containers", "/etc/containers")
RUNTIMES = ("crun", "runc")
_PLACES = "/usr/bin /usr/sbin /usr/local/bin /usr/local/sbin /sbin /bin"
_LAST = {
    "crun": ["/run/current-system/sw/bin/crun"],
    "runc": ["/usr/lib/cri-o-runc/sbin/runc", "/run/current-system/sw/bin/runc"],
}
_HOOKS_DEFAULT = ["/usr/share/containers/oci/hooks.d"]


class Conf(NamedTuple):
    """What containers.conf and its drop-in files say, ours left out, and who says it last."""

    engine: dict[str, Any]
    last: dict[tuple[str, ...], Path]


class Way(NamedTuple):
    """The drop-in file's text, the hooks wanted with their arguments, and what is to be said."""

    text: str
    hooks: dict[str, list[str]]
    notes: list[str]


def install_options(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the way."""
    parser.add_argument(
        "--way",
        choices=("runtime", "hooks"),
        default="runtime",
        help="runtime (default): the wrapper under the names crun and runc; covers containers "
        "that are there already, and exec. hooks: nothing in the runtime's place, for a runtime "
        "that is neither; exec is not covered",
    )


def uninstall_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""
    del parser


def status_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""
    del parser


def plan(options: argparse.Namespace, host: Host) -> Plan:
    """Plan one drop-in file, and the hooks' files where they are wanted."""
    folder = _folder(host)
    release = _release(host)
    if release and release < (3, 3):
        raise ShimError(
            f"podman {'.'.join(map(str, release))} reads no drop-in files",
            hint="Podman 3.3 and later do",
        )
    conf = _read(folder, host)
    way = (_runtimes if options.way == "runtime" else _hooks)(conf, folder, host)
    for path in _overruling(_engine(tomllib.loads(way.text)), conf, folder):
        raise ShimError(
            f"is read after {DROP_IN} and overrules it",
            subject=str(path),
            hint="give it a name that sorts before, then install again",
        )
    if os.environ.get("CONTAINERS_CONF"):
        way.notes.append("CONTAINERS_CONF is set here: a podman that has it reads no other file")
    edits = [
        *hooksd.edits(folder / HOOKS, host, way.hooks),
        edit(folder / DROP_IN, (dropin.header("podman") + way.text).encode()),
    ]
    return Plan(edits, way.notes, ["nothing: it holds from the next podman command on"])


def places(options: argparse.Namespace, host: Host) -> list[Path]:
    """Give the files of our own that may be there."""
    del options
    folder = _folder(host)
    return [folder / DROP_IN, *hooksd.places(folder / HOOKS)]


def without(path: Path, now: bytes, original: bytes | None) -> bytes | None:
    """Take our entries out of the drop-in file; the hooks' files are ours whole."""
    del original
    if path.suffix == ".json":
        return None
    engine = _engine(toml.parse(now, str(path)))
    ours: list[tuple[str, ...]] = [
        ("engine", "runtimes", name)
        for name, paths in engine.get("runtimes", {}).items()
        if paths and os.path.basename(paths[0]) == f"seccomp-shim-{name}"
    ]
    if ours and engine.get("runtime") in RUNTIMES:
        ours.append(("engine", "runtime"))
    if any(str(each).endswith(HOOKS) for each in engine.get("hooks_dir", [])):
        ours.append(("engine", "hooks_dir"))
    return dropin.without(path, now, "podman", ours)


def removal_notes(options: argparse.Namespace, host: Host) -> list[str]:
    """Say what becomes of containers that are there."""
    del options, host
    return ["containers that are there go on with the runtime itself, under the name they have"]


def activate(options: argparse.Namespace, host: Host) -> list[str]:
    """Do nothing: every podman command reads its configuration."""
    del options, host
    return []


def status(options: argparse.Namespace, host: Host) -> dict[str, Any]:
    """Tell what our drop-in file says, and whether another one overrules it."""
    del options
    folder = _folder(host)
    path = folder / DROP_IN
    data = content(path)
    engine = _engine(toml.parse(data, str(path))) if data is not None else {}
    entries = hooksd.entries(folder / HOOKS, host)
    for name, paths in engine.get("runtimes", {}).items():
        there = os.access(host.path(paths[0]), os.X_OK)
        entries.append({"file": str(path), "name": name, "path": paths[0], "exists": there})
    meaning = "podman takes the next path" if "runtimes" in engine else "podman leaves it out"
    problems = [
        f"{each['file']}: {each['path']} is not there: {meaning}"
        for each in entries
        if not each["exists"]
    ]
    problems += [
        f"{each} overrules {path}" for each in _overruling(engine, _read(folder, host), folder)
    ]
    return {
        "engine": "podman",
        "present": host.program("podman") is not None,
        "registered": bool(entries),
        "entries": entries,
        "default": bool(entries),
        "running": None,
        "known": None,
        "problems": problems,
        "notes": [],
        "way": "runtime" if "runtimes" in engine else "hooks" if entries else None,
    }


def _runtimes(conf: Conf, folder: Path, host: Host) -> Way:
    """Give the table of runtimes with the wrapper first; ShimError: there is none to wrap."""
    del folder
    table: dict[str, Any] = {}
    notes = []
    for name in RUNTIMES:
        real = _real(name, conf, host)
        if real is None:
            continue  # an entry would make podman believe that it is there
        table[name] = [dropin.program(host, f"seccomp-shim-{name}"), *_paths(name, conf, host)]
        found = host.program(name)
        if found and not os.path.samefile(host.path(real), host.path(found)):
            notes.append(
                f"podman takes {real}, but {found} is first on PATH: to keep podman's, name it in "
                f"/etc/seccomp-shim/config.yaml (runtimes: {name}: {real})"
            )
    if not table:
        raise ShimError("podman has neither crun nor runc here", hint="install one of them")
    text = ""
    chosen = str(conf.engine.get("runtime", ""))
    name = os.path.basename(chosen)
    if chosen.startswith("/") and name in table:
        # Named by its path, none of the lists is asked.
        text = toml.table(("engine",), {"runtime": name})
        notes.append(
            f"runtime = {chosen} becomes {name}; containers made before keep the path and are "
            "not covered until they are made anew"
        )
    elif chosen and chosen not in table:
        raise ShimError(
            f"podman's runtime is {chosen}, which the wrapper does not stand for",
            hint="--way hooks works with every OCI runtime",
        )
    return Way(toml.append(text, toml.table(("engine", "runtimes"), table)), {}, notes)


def _hooks(conf: Conf, folder: Path, host: Host) -> Way:
    """Give the list of hook folders with ours last, and the executables to have in it."""
    ours = "/" + str((folder / HOOKS).relative_to(host.root))
    folders = [f for f in conf.engine.get("hooks_dir", _HOOKS_DEFAULT) if f != ours]
    notes = ["exec is not covered: no hook runs for it (--way runtime covers it)"]
    wanted: dict[str, list[str]] = {"seccomp-shim-hook": [], "seccomp-shim-verify": []}
    name = str(conf.engine.get("runtime", ""))
    names = [name] if name else RUNTIMES
    real = next(filter(None, (_real(each, conf, host) for each in names)), None)
    if real and _precreate_helps(real):
        wanted["seccomp-shim-precreate"] = ["--runtime", real]
        notes.append(f"where {real} runs a container its configuration is changed before: free")
    else:
        notes.append("every container's filter is changed as it is loaded: some milliseconds")
    return Way(toml.table(("engine",), {"hooks_dir": [*folders, ours]}), wanted, notes)


def _precreate_helps(runtime: str) -> bool:
    """Tell whether a changed configuration is enough for ``runtime``."""
    if os.path.basename(runtime).startswith("crun"):
        return True  # takes a raw program (0.18)
    version = libseccomp_version(runtime)
    return any(knows(version, call.libseccomp) for call in kernel_injected().values())


def _paths(name: str, conf: Conf, host: Host) -> list[str]:
    """Give the paths at which podman looks for runtime ``name`` without us."""
    default = [f"{place}/{name}" for place in _PLACES.split()] + _LAST.get(name, [])
    ours = str(host.executable(f"seccomp-shim-{name}"))
    return [path for path in conf.engine.get("runtimes", {}).get(name, default) if path != ours]


def _real(name: str, conf: Conf, host: Host) -> str | None:
    """Give the path of the runtime that podman starts by ``name`` without us."""
    if name.startswith("/"):
        return name
    found = (path for path in _paths(name, conf, host) if host.path(path).is_file())
    return next(found, None) or host.program(name)


def _folder(host: Host) -> Path:
    """Give the folder containers/ to write to: the system's for root, else the user's own."""
    if os.geteuid() == 0:
        return host.path(SYSTEM[1])
    own = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(own) if own.startswith("/") else host.home / ".config") / "containers"


def _read(folder: Path, host: Host) -> Conf:
    """Read what podman reads, in its order; our own file and the user's for root are left out."""
    engine: dict[str, Any] = {}
    last: dict[tuple[str, ...], Path] = {}
    for path in _files(folder, host):
        data = content(path)
        found = _engine(toml.parse(data, str(path))) if data is not None else {}
        runtimes = {**engine.get("runtimes", {}), **found.get("runtimes", {})}
        engine |= found | ({"runtimes": runtimes} if runtimes else {})
        keys: list[tuple[str, ...]] = [(key,) for key in found if key != "runtimes"]
        keys += [("runtimes", name) for name in found.get("runtimes", {})]
        last.update(dict.fromkeys(keys, path))
    return Conf(engine, last)


def _files(folder: Path, host: Host) -> Iterator[Path]:
    system = [host.path(each) for each in SYSTEM]
    for each in [*system, *({folder} - set(system))]:
        yield each / "containers.conf"
        for path in sorted((each / "containers.conf.d").glob("*.conf")):
            if path != folder / DROP_IN:
                yield path


def _overruling(engine: dict[str, Any], conf: Conf, folder: Path) -> Iterator[Path]:
    """Give the files that are read after ours and say the same otherwise."""
    ours = folder / DROP_IN
    for key, path in conf.last.items():
        behind = path.parent == ours.parent and path.name > ours.name
        if behind and toml.look_up(engine, key) is not None:
            yield path


def _engine(document: dict[str, Any]) -> dict[str, Any]:
    """Give the table ``engine`` of a containers.conf."""
    table = document.get("engine", {})
    return dict(table) if isinstance(table, dict) else {}


def _release(host: Host) -> tuple[int, ...]:
    """Give the first two numbers of podman's version; nothing where it cannot be asked."""
    program = host.program("podman")
    if program is None:
        return ()
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"(\d+)\.(\d+)", answer.stdout)
    return tuple(map(int, found.groups())) if found else ()
