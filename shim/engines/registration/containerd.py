"""containerd: a runtime handler of its CRI service, for Kubernetes; ``ctr`` needs none.

containerd 1.x takes a plugin's section of an imported file in place of the main file's, and once a
file names any handler it forgets its built-in ``runc`` (both seen in ``containerd config dump`` of
1.6.20 and 1.7.24; 2.1.9 merges both). So the tables go into the main file, unless containerd is 2.x
and that file imports the folder conf.d.
"""

import argparse
import os
import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shim.engines import toml
from shim.engines.changes import content, edit
from shim.engines.registration import Host, Plan, containerdfile, dropin
from shim.engines.registration.containerdfile import CRI, NAME, RUNC, File
from shim.errors import ShimError

CONFIG = "/etc/containerd/config.toml"


def install_options(parser: argparse.ArgumentParser) -> None:
    """Add where the file is, and whether pods without a RuntimeClass are covered, too."""
    uninstall_options(parser)
    parser.add_argument(
        "--default",
        action="store_true",
        help="make the handler the default one: pods need no RuntimeClass then",
    )


def uninstall_options(parser: argparse.ArgumentParser) -> None:
    """Add where the file is."""
    parser.add_argument(
        "--config",
        default=CONFIG,
        metavar="FILE",
        help="containerd's configuration (default: %(default)s)",
    )


def status_options(parser: argparse.ArgumentParser) -> None:
    """Add where the file is."""
    uninstall_options(parser)


def plan(options: argparse.Namespace, host: Host) -> Plan:
    """Plan a handler that is like the default one but for its program."""
    release = _release(host)
    file = containerdfile.read(host.path(options.config), 3 if release >= (2,) else 2)
    if {"cri", *CRI.values()} & set(
        map(str, toml.a_list(file.document, "disabled_plugins", file.path))
    ):
        raise ShimError(
            "disables the CRI service, which alone has handlers",
            subject=str(file.path),
            hint=f"ctr takes --runc-binary {host.executable('seccomp-shim-runc')} without any",
        )
    if release < (2,):
        containerdfile.refuse_replaced(file)
    model = _model(file, host)
    given = toml.a_table(model, ("options",), file.path)
    program = str(given.get("BinaryName", "")) or "runc"
    ours = "seccomp-shim-crun" if "crun" in os.path.basename(program) else "seccomp-shim-runc"
    taken = {**given, "BinaryName": dropin.program(host, ours)}
    handler = {"runtime_type": RUNC, **model, "options": taken}
    if release >= (2,) and containerdfile.drop_in(file.path) in containerdfile.imports(file):
        where = "a file of its own, which it imports"
        edits = [
            edit(
                containerdfile.drop_in(file.path),
                containerdfile.drop_in_text(file, handler, options.default).encode(),
            )
        ]
    else:
        where = "tables of its main file"
        edits = [containerdfile.main_edit(file, handler, options.default)]
    version = ".".join(map(str, release)) or "of unknown version"
    notes = [f"containerd {version}: the handler goes into {where}"]
    if os.path.basename(program) != program:
        name = ours.rpartition("-")[2]
        notes += dropin.kept_runtime(host, name, program, "the handler that ours is modelled on")
    steps = ["restart containerd when it suits (running containers go on)"]
    if not options.default:
        steps.append(
            "give pods the handler: kubectl apply -f deploy/kubernetes/base/runtimeclass.yaml, "
            f"then runtimeClassName: {NAME}"
        )
    return Plan(edits, dropin.absence(host, "containerd") + notes, steps)


def places(options: argparse.Namespace, host: Host) -> list[Path]:
    """Give the main file and the one it may import."""
    main = host.path(options.config)
    return [main, containerdfile.drop_in(main)]


def without(path: Path, now: bytes, original: bytes | None) -> bytes | None:
    """Take our tables out, and the default that names them."""
    return containerdfile.without(path, now, original)


def removal_notes(options: argparse.Namespace, host: Host) -> list[str]:
    """Say what becomes of pods that run with the handler."""
    del options, host
    return [
        "restart containerd afterwards; pods with the RuntimeClass cannot be started without the "
        "handler, and those that run need the program until they end"
    ]


def activate(options: argparse.Namespace, host: Host) -> list[str]:
    """Do nothing: containerd reads its configuration when it starts only."""
    del options, host
    return []


def status(options: argparse.Namespace, host: Host) -> dict[str, Any]:
    """Tell whether the handler is in containerd's configuration, and its program there."""
    entries, problems, notes = [], [], []
    default = None
    for path in places(options, host):
        data = content(path)
        if data is None:
            continue
        document = toml.parse(data, str(path))
        for plugin in CRI.values():
            cri = toml.a_table(document, ("plugins", plugin, "containerd"), path)
            default = cri.get("default_runtime_name", default)
            program = toml.look_up(cri, ("runtimes", NAME, "options", "BinaryName"))
            if program is None:
                continue
            exists = os.access(host.path(program), os.X_OK)
            entries.append(
                {"file": str(path), "name": NAME, "path": str(program), "exists": exists}
            )
            if not exists:
                problems.append(f"{path}: {program} is not there: its pods cannot start")
    if not entries:
        notes.append("ctr needs no registration: ctr run --runc-binary")
    return {
        "engine": "containerd",
        "present": host.program("containerd") is not None,
        "registered": bool(entries),
        "entries": entries,
        "default": default == NAME if entries else False,
        "running": None,
        "known": None,
        "problems": problems,
        "notes": notes,
    }


def _model(file: File, host: Host) -> dict[str, Any]:
    """Give the handler that ours is to be like: the default one in force, else runc, else none.

    Imports and defaults are known where containerd can be asked.
    """
    document: Mapping[str, Any] = file.document
    program = host.program("containerd")
    if program:
        command = [program, "--config", str(file.path), "config", "dump"]
        if file.data is None:
            command = [program, "config", "default"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            document = tomllib.loads(answer.stdout)
    for plugin in CRI.values():
        cri = toml.a_table(document, ("plugins", plugin, "containerd"), file.path)
        for name in (str(cri.get("default_runtime_name")), "runc"):
            handler = toml.a_table(cri, ("runtimes", name), file.path)
            if name != NAME and handler.get("runtime_type") == RUNC:
                return _not_zero(handler)
    return {}


def _not_zero(table: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is Go's zero value: it is what a missing key means."""
    inner = {k: _not_zero(v) if isinstance(v, dict) else v for k, v in table.items()}
    return {key: value for key, value in inner.items() if value not in ("", 0, False, [], {})}


def _release(host: Host) -> tuple[int, ...]:
    """Give the numbers of containerd's version; nothing where it cannot be asked."""
    program = host.program("containerd")
    if program is None:
        return ()
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(map(int, found.groups())) if found else ()
