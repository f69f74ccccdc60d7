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
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shim.catalog import kernel_injected
from shim.engines import toml
from shim.engines.podman import config, users
from shim.engines.podman.config import DROP_IN, HOOKS, RUNTIMES, Conf
from shim.engines.podman.status import coverage, status
from shim.engines.registration import Host, RegistrationPlan, dropin, executable, hooks_dir
from shim.engines.registration.changes import Edit, content, edit
from shim.errors import ShimError
from shim.host.runtimes import knows, libseccomp_version

__all__ = [
    "activate", "install_options", "places", "plan", "removal", "status",
    "status_options", "uninstall_options", "without",
]  # fmt: skip


class PodmanEdit(NamedTuple):
    """The drop-in file's text, the hooks wanted with their arguments, and what is to be said.

    ``edits`` are those of other files.
    """

    text: str
    hooks: dict[str, list[str]]
    notes: list[str]
    edits: list[Edit]


def install_options(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the way."""
    parser.add_argument(
        "--way",
        choices=("runtime", "hooks"),
        default="runtime",
        help="runtime (default): the wrapper under the names crun and runc; covers containers "
        "that are there already, and exec. hooks: nothing in the runtime's place, for a runtime "
        "that is neither; exec is covered where a changed configuration is enough, as with crun",
    )
    executable.add_option(parser, "runtime")


def uninstall_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""
    del parser


def status_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""
    del parser


def plan(options: argparse.Namespace, host: Host) -> RegistrationPlan:
    """Plan one drop-in file, and the hooks' files where they are wanted."""
    directory = config.folder_of(host)
    release = _release(host)
    if release and release < (3, 3):
        raise ShimError(
            f"podman {'.'.join(map(str, release))} reads no drop-in files",
            hint="Podman 3.3 and later do",
        )
    conf = config.read(directory, host)
    if options.way == "hooks" and options.runtime:
        raise ShimError("--runtime is for --way runtime: hooks hold for every runtime")
    way = (_runtimes if options.way == "runtime" else _hooks)(options, conf, directory, host)
    for path in config.overruling(
        config.engine_of(tomllib.loads(way.text), directory), conf, directory
    ):
        raise ShimError(
            f"is read after {DROP_IN} and overrules it",
            subject=str(path),
            hint="give it a name that sorts before, then install again",
        )
    if os.environ.get("CONTAINERS_CONF"):
        way.notes.append("CONTAINERS_CONF is set here: a podman that has it reads no other file")
    edits = [
        *hooks_dir.edits(directory / HOOKS, host, way.hooks),
        edit(directory / DROP_IN, (dropin.header("podman") + way.text).encode()),
        *way.edits,
    ]
    notes = dropin.absence(host, "podman") + way.notes
    table = config.engine_of(tomllib.loads(way.text), directory).get("runtimes", {})
    covers = coverage(table, "seccomp-shim-precreate" in way.hooks, conf, host)
    return RegistrationPlan(
        edits, notes, ["nothing: it holds from the next podman command on"], covers
    )


def places(options: argparse.Namespace, host: Host) -> list[Path]:
    """Return the files of our own that may be there."""
    del options
    directory = config.folder_of(host)
    scripts = executable.places(host, "podman", _scripts(directory, host))
    return [directory / DROP_IN, *hooks_dir.places(directory / HOOKS), *scripts]


def without(path: Path, now: bytes, original: bytes | None) -> bytes | None:
    """Take our entries out of the drop-in file; the hooks' files are ours whole."""
    del original
    if path.suffix == ".json" or executable.is_ours(str(path)):
        return None
    engine = config.engine_of(toml.parse(now, str(path)), path)
    ours: list[tuple[str, ...]] = [
        ("engine", "runtimes", name)
        for name, paths in engine.get("runtimes", {}).items()
        if paths and executable.is_ours(paths[0])
    ]
    if ours and engine.get("runtime") in RUNTIMES:
        ours.append(("engine", "runtime"))
    if any(str(each).endswith(HOOKS) for each in engine.get("hooks_dir", [])):
        ours.append(("engine", "hooks_dir"))
    return dropin.without(path, now, "podman", ours)


def removal(
    options: argparse.Namespace, host: Host, edits: Sequence[Edit]
) -> tuple[list[Edit], list[str]]:
    """Say what becomes of containers that are there, and which users have registered us."""
    del options, host
    stay = "containers that are there go on with the runtime itself, under the name they have"
    notes = [stay] if edits else []
    for user in users.registered(0):
        if user.file:
            hint = f"seccomp-shim uninstall podman, as {user.name}, takes it away"
            notes.append(
                f"user {user.name} has registered it for himself, which stays: {user.file} ({hint})"
            )
    return list(edits), notes


def activate(options: argparse.Namespace, host: Host) -> list[str]:
    """Do nothing: every podman command reads its configuration."""
    del options, host
    return []


def _scripts(directory: Path, host: Host) -> Path:
    """Return where scripts of ours go: only root may write to our own directory."""
    if os.geteuid() == 0:
        return host.bin
    return Path("/" + str((directory / "oci").relative_to(host.root)))


def _in_front(name: str, conf: Conf, directory: Path, host: Host) -> PodmanEdit:
    """Return the table with the wrapper first of one runtime's paths, which it calls."""
    real = config.real(name, conf, host)
    if real is None:
        raise ShimError(f"podman has no runtime {name} here to stand in front of")
    real = real.removeprefix(str(host.root).rstrip("/")) if host.path(real) != Path(real) else real
    path, edits = executable.program(host, "podman", name, real, _scripts(directory, host))
    table = {**_fronted(directory), name: [path, *config.paths(name, conf, host)]}
    text = toml.table(("engine", "runtimes"), table)
    notes = [f"{name} is the wrapper, and calls {real}, which it was so far"]
    return PodmanEdit(text, {}, notes, edits)


def _fronted(directory: Path) -> dict[str, Any]:
    """Return the runtimes that we are the first path of already."""
    data = content(directory / DROP_IN)
    document = toml.parse(data, str(directory / DROP_IN)) if data is not None else {}
    found = config.engine_of(document, directory / DROP_IN).get("runtimes", {})
    return {name: paths for name, paths in found.items() if paths and executable.is_ours(paths[0])}


def _runtimes(options: argparse.Namespace, conf: Conf, directory: Path, host: Host) -> PodmanEdit:
    """Return the table of runtimes with the wrapper first; ShimError: there is none to wrap."""
    if options.runtime:
        return _in_front(options.runtime, conf, directory, host)
    table: dict[str, Any] = _fronted(directory)
    there = len(table)
    notes = ["through the wrapper exec and containers that are there already are covered, too"]
    for name in RUNTIMES:
        real = config.real(name, conf, host)
        if real is None:
            continue  # an entry would make podman believe that it is there
        table[name] = [
            dropin.program(host, f"seccomp-shim-{name}"),
            *config.paths(name, conf, host),
        ]
        notes += dropin.kept_runtime(host, name, real, "podman")
    if len(table) == there and not table.keys() & set(RUNTIMES):
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
    return PodmanEdit(toml.append(text, toml.table(("engine", "runtimes"), table)), {}, notes, [])


def _hooks(options: argparse.Namespace, conf: Conf, directory: Path, host: Host) -> PodmanEdit:
    """Return the list of hook directories with ours last, and the executables to have in it."""
    del options
    ours = "/" + str((directory / HOOKS).relative_to(host.root))
    directories = [f for f in conf.engine.get("hooks_dir", config.HOOKS_DEFAULT) if f != ours]
    notes = ["no hook runs for exec (--way runtime covers it)"]
    wanted: dict[str, list[str]] = {"seccomp-shim-hook": [], "seccomp-shim-verify": []}
    name = str(conf.engine.get("runtime", ""))
    names = [name] if name else RUNTIMES
    real = next(filter(None, (config.real(each, conf, host) for each in names)), None)
    if real and _precreate_helps(real):
        wanted["seccomp-shim-precreate"] = ["--runtime", real]
        notes.append(f"where {real} runs a container its configuration is changed before: free")
    else:
        notes.append("every container's filter is changed as it is loaded: some milliseconds")
    return PodmanEdit(
        toml.table(("engine",), {"hooks_dir": [*directories, ours]}), wanted, notes, []
    )


def _precreate_helps(runtime: str) -> bool:
    """Tell whether a changed configuration is enough for ``runtime``."""
    if os.path.basename(runtime).startswith("crun"):
        return True  # takes a raw program (0.18)
    version = libseccomp_version(runtime)
    return any(knows(version, call.libseccomp) for call in kernel_injected().values())


def _release(host: Host) -> tuple[int, ...]:
    """Return the first two numbers of podman's version; nothing where it cannot be asked."""
    found = re.search(r"(\d+)\.(\d+)", host.run("podman", "--version").stdout)
    return tuple(map(int, found.groups())) if found else ()
