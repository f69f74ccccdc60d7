"""CRI-O: a runtime handler, or hooks; never the stage precreate, with which it does not start.

CRI-O reads crio.conf, then every file of crio.conf.d in the order of their names, each on top of
what was read before (pkg/config/config.go, UpdateFromDropInFile). No CRI-O has run with this here:
Debian has none. What is written follows crio.conf(5) of version 1.37.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from shim.engines import toml
from shim.engines.changes import content, edit
from shim.engines.registration import Host, Plan, dropin, hooksd
from shim.errors import ShimError

NAME = "seccomp-shim"
FOLDER = "/etc/crio"
DROP_IN = "crio.conf.d/99-seccomp-shim.conf"
TABLE = ("crio", "runtime")
HOOKS = "/etc/containers/oci/hooks.d"
_HOOKS_DEFAULT = ["/usr/share/containers/oci/hooks.d"]


def install_options(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the way, and whether pods without a RuntimeClass are covered, too."""
    parser.add_argument(
        "--way",
        choices=("runtime", "hooks"),
        default="runtime",
        help="runtime (default): a handler with the wrapper, for pods of a RuntimeClass; covers "
        "exec. hooks: all pods, whatever their handler; exec is not covered",
    )
    parser.add_argument(
        "--default",
        action="store_true",
        help="make the handler the default one: pods need no RuntimeClass then",
    )


def uninstall_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""
    del parser


def status_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""
    del parser


def plan(options: argparse.Namespace, host: Host) -> Plan:
    """Plan one drop-in file, and the hooks' files where they are wanted."""
    runtime = _read(host)
    wanted: dict[str, list[str]] = {}
    steps = ["restart CRI-O when it suits (running containers go on)"]
    if options.way == "hooks":
        if options.default:
            raise ShimError("--default is for --way runtime: hooks hold for every handler")
        folders = [f for f in runtime.get("hooks_dir", _HOOKS_DEFAULT) if f != HOOKS]
        text = toml.table(TABLE, {"hooks_dir": [*folders, HOOKS]})
        wanted = {"seccomp-shim-hook": [], "seccomp-shim-verify": []}
        notes = ["exec is not covered: no hook runs for it (--way runtime does)"]
    else:
        text, notes = _handler(runtime, host, options.default)
        if not options.default:
            steps.append(
                "give pods the handler: kubectl apply -f deploy/kubernetes/base/runtimeclass.yaml, "
                f"then runtimeClassName: {NAME}"
            )
    edits = [
        *hooksd.edits(host.path(HOOKS), host, wanted),
        edit(host.path(FOLDER) / DROP_IN, (dropin.header("crio") + text).encode()),
    ]
    return Plan(edits, dropin.absence(host, "crio") + notes, steps)


def places(options: argparse.Namespace, host: Host) -> list[Path]:
    """Give the files of our own that may be there."""
    del options
    return [host.path(FOLDER) / DROP_IN, *hooksd.places(host.path(HOOKS))]


def without(path: Path, now: bytes, original: bytes | None) -> bytes | None:
    """Take our entries out of the drop-in file; the hooks' files are ours whole."""
    del original
    if path.suffix == ".json":
        return None
    runtime = _runtime(toml.parse(now, str(path)), path)
    ours = []
    if runtime.get("default_runtime") == NAME:
        ours.append((*TABLE, "default_runtime"))
    if HOOKS in runtime.get("hooks_dir", []):
        ours.append((*TABLE, "hooks_dir"))
    return dropin.without(path, now, "crio", ours, (*TABLE, "runtimes", NAME))


def removal_notes(options: argparse.Namespace, host: Host) -> list[str]:
    """Say what becomes of pods that run with the handler."""
    del options, host
    return [
        "restart CRI-O afterwards; end the pods of the RuntimeClass first: it cannot manage them "
        "without the handler"
    ]


def activate(options: argparse.Namespace, host: Host) -> list[str]:
    """Do nothing: a reload reads some tables again and others not, and says so only in its log."""
    del options, host
    return []


def status(options: argparse.Namespace, host: Host) -> dict[str, Any]:
    """Tell what our drop-in file says."""
    del options
    path = host.path(FOLDER) / DROP_IN
    data = content(path)
    runtime = _runtime(toml.parse(data, str(path)), path) if data is not None else {}
    entries = hooksd.entries(host.path(HOOKS), host)
    program = toml.look_up(runtime, ("runtimes", NAME, "runtime_path"))
    if program is not None:
        there = os.access(host.path(program), os.X_OK)
        entries.append({"file": str(path), "name": NAME, "path": program, "exists": there})
    return {
        "engine": "crio",
        "present": host.program("crio") is not None,
        "registered": bool(entries),
        "entries": entries,
        "default": bool(entries) and (program is None or runtime.get("default_runtime") == NAME),
        "running": None,
        "known": None,
        "problems": [f"{e['file']}: {e['path']} is not there" for e in entries if not e["exists"]],
        "notes": [],
        "way": "runtime" if program is not None else "hooks" if entries else None,
    }


def _handler(runtime: dict[str, Any], host: Host, default: bool) -> tuple[str, list[str]]:
    """Give a handler that is like the default one but for its program, and what is to be said."""
    handlers = {k: v for k, v in runtime.get("runtimes", {}).items() if k != NAME}
    name = str(runtime.get("default_runtime", ""))
    if name not in handlers:
        known = [each for each in ("crun", "runc") if each in handlers]
        here = [each for each in ("crun", "runc") if host.program(each)]
        if not known and not here:
            raise ShimError("CRI-O has neither crun nor runc here", hint="install one of them")
        name = (known or here)[0]
    model = handlers.get(name, {"runtime_root": f"/run/{name}"})
    if model.get("runtime_type", "oci") not in {"", "oci"}:
        raise ShimError(f"CRI-O's default handler {name} is no OCI runtime", hint="see --way hooks")
    program = model.get("runtime_path") or host.program(name) or name
    stem = "crun" if "crun" in os.path.basename(program) else "runc"
    handler = {
        **model,
        "runtime_path": dropin.program(host, f"seccomp-shim-{stem}"),
        "runtime_type": "oci",
    }
    notes = dropin.kept_runtime(host, stem, program, f"CRI-O's {name}")
    text = toml.table(TABLE, {"default_runtime": NAME}) if default else ""
    return toml.append(text, toml.table((*TABLE, "runtimes", NAME), handler)), notes


def _read(host: Host) -> dict[str, Any]:
    """Give the table crio.runtime as CRI-O puts it together, without our own file."""
    folder = host.path(FOLDER)
    merged: dict[str, Any] = {}
    for path in [folder / "crio.conf", *sorted((folder / "crio.conf.d").glob("*"))]:
        data = content(path) if path != folder / DROP_IN else None
        found = _runtime(toml.parse(data, str(path)), path) if data is not None else {}
        handlers = {**merged.get("runtimes", {}), **found.get("runtimes", {})}
        merged |= found | ({"runtimes": handlers} if handlers else {})
    return merged


def _runtime(document: dict[str, Any], where: Path) -> dict[str, Any]:
    table = dict(toml.a_table(document, TABLE, where))
    if "runtimes" in table:
        found = toml.a_table(table, ("runtimes",), where)
        table["runtimes"] = {name: toml.a_table(found, (name,), where) for name in found}
    if "hooks_dir" in table:
        table["hooks_dir"] = toml.a_list(table, "hooks_dir", where)
    return table
