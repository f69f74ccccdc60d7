"""containerd: a runtime handler of its CRI service, for Kubernetes; ``ctr`` needs none.

containerd 1.x takes a plugin's section of an imported file in place of the main file's, and once a
file names any handler it forgets its built-in ``runc`` (both seen in ``containerd config dump`` of
1.6.20 and 1.7.24; 2.1.9 merges both). So the tables go into the main file, unless containerd is 2.x
and that file imports the folder conf.d.
"""

import argparse
import copy
import fnmatch
import glob
import os
import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shim.engines import toml
from shim.engines.changes import Edit, content, edit
from shim.engines.registration import Host, Plan, dropin
from shim.errors import ShimError

NAME = "seccomp-shim"
CONFIG = "/etc/containerd/config.toml"
DROP_IN = "conf.d/90-seccomp-shim.toml"
RUNC = "io.containerd.runc.v2"
# The plugin that has the runtimes, by version of the configuration file.
CRI = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
_KEPT = {"runtime_type": RUNC}
_MARK = "# kept by seccomp-shim: containerd 1.x forgets it once it is told of another handler\n"


class File(NamedTuple):
    """The main file: its text, what it says, and where it keeps the runtimes."""

    path: Path
    data: bytes | None
    text: str
    document: dict[str, Any]
    version: int

    @property
    def cri(self) -> tuple[str, ...]:
        """Give the way to the table with ``default_runtime_name`` and ``runtimes``."""
        return ("plugins", CRI[self.version], "containerd")

    @property
    def handler(self) -> tuple[str, ...]:
        """Give the way to our handler."""
        return (*self.cri, "runtimes", NAME)


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
    file = _read(host.path(options.config), 3 if release >= (2,) else 2)
    if {"cri", CRI[2], CRI[3]} & set(map(str, file.document.get("disabled_plugins", []))):
        raise ShimError(
            "disables the CRI service, which alone has handlers",
            subject=str(file.path),
            hint=f"ctr takes --runc-binary {host.executable('seccomp-shim-runc')} without any",
        )
    if release < (2,):
        _refuse_replaced(file)
    model = _model(file, host)
    program = str(model.get("options", {}).get("BinaryName", "")) or "runc"
    ours = "seccomp-shim-crun" if "crun" in os.path.basename(program) else "seccomp-shim-runc"
    taken = {**model.get("options", {}), "BinaryName": dropin.program(host, ours)}
    handler = {"runtime_type": RUNC, **model, "options": taken}
    if release >= (2,) and _drop_in(file.path) in _imports(file):
        where = "a file of its own, which it imports"
        edits = [edit(_drop_in(file.path), _drop_in_text(file, handler, options.default).encode())]
    else:
        where = "tables of its main file"
        edits = [_main_edit(file, handler, options.default)]
    version = ".".join(map(str, release)) or "of unknown version"
    notes = [f"containerd {version}: the handler goes into {where}"]
    if os.path.basename(program) != program:
        notes.append(
            f"the handler that ours is modelled on starts {program}; to keep that, name it in "
            f"/etc/seccomp-shim/config.yaml (runtimes: {ours.rpartition('-')[2]}: {program})"
        )
    steps = ["restart containerd when it suits (running containers go on)"]
    if not options.default:
        steps.append(
            "give pods the handler: kubectl apply -f deploy/kubernetes/runtimeclass.yaml, "
            f"then runtimeClassName: {NAME}"
        )
    return Plan(edits, notes, steps)


def places(options: argparse.Namespace, host: Host) -> list[Path]:
    """Give the main file and the one it may import."""
    main = host.path(options.config)
    return [main, _drop_in(main)]


def without(path: Path, now: bytes, original: bytes | None) -> bytes | None:
    """Take our tables out, and the default that names them."""
    document = toml.parse(now, str(path))
    if path.name == Path(DROP_IN).name:
        cri = ("plugins", CRI.get(document.get("version", 1), ""), "containerd")
        default = (*cri, "default_runtime_name")
        ours = [default] if toml.look_up(document, default) == NAME else []
        return dropin.without(path, now, "containerd", ours, (*cri, "runtimes", NAME))
    text = now.decode()
    before = tomllib.loads(original.decode()) if original is not None else {}
    for plugin in CRI.values():
        cri = ("plugins", plugin, "containerd")
        text = toml.without_table(text, (*cri, "runtimes", NAME))
        text = _without_kept_runc(text, (*cri, "runtimes", "runc"))
        key = (*cri, "default_runtime_name")
        if toml.look_up(tomllib.loads(text), key) == NAME:
            old = toml.look_up(before, key)
            text = toml.with_value(text, key, old) if old else toml.without_key(text, key)
    return text.encode()


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
            cri = toml.look_up(document, ("plugins", plugin, "containerd")) or {}
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


def _read(path: Path, version_if_new: int) -> File:
    """Read the main file; ShimError: it cannot be extended."""
    data = content(path)
    document = toml.parse(data or b"", str(path))
    text = (data or b"").decode()
    if not document:
        # Comments stay; a file without a version would be one of version 1.
        text += f"version = {version_if_new}\n"
        document = {"version": version_if_new}
    version = document.get("version", 1)
    if version not in CRI:
        raise ShimError(
            f"is a configuration of version {version}; 2 and 3 can be extended",
            subject=str(path),
            hint="containerd config migrate (1.7 and later) prints it in a newer one",
        )
    return File(path, data, text, document, version)


def _main_edit(file: File, handler: dict[str, Any], default: bool) -> Edit:
    """Put the handler into the main file; ShimError: it is written so that it cannot be."""
    text = file.text
    wanted = copy.deepcopy(file.document)
    cri = wanted
    for name in file.cri:
        cri = cri.setdefault(name, {})
    runtimes = cri.setdefault("runtimes", {})
    if not runtimes.keys() - {NAME}:
        header, _, body = toml.table((*file.cri, "runtimes", "runc"), _KEPT).partition("\n")
        text = toml.append(text, f"{header} {_MARK}{body}")
        runtimes["runc"] = _KEPT
    if runtimes.get(NAME) != handler:
        text = toml.without_table(text, file.handler)
        text = toml.append(text, toml.table(file.handler, handler))
        runtimes[NAME] = handler
    if default and cri.get("default_runtime_name") != NAME:
        text = toml.with_value(text, (*file.cri, "default_runtime_name"), NAME)
        cri["default_runtime_name"] = NAME
    try:
        done = tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        done = False
    if not done:
        raise ShimError(
            "writes its tables inline, where no handler can be added at the end",
            subject=str(file.path),
            hint=f"write [{'.'.join(file.cri)}] and the tables in it under headers of their own",
        )
    return Edit(file.path, file.data, text.encode())


def _drop_in_text(file: File, handler: dict[str, Any], default: bool) -> str:
    head = f"{dropin.header('containerd')}version = {file.version}\n"
    if default:
        head = toml.append(head, toml.table(file.cri, {"default_runtime_name": NAME}))
    return toml.append(head, toml.table(file.handler, handler))


def _without_kept_runc(text: str, path: tuple[str, ...]) -> str:
    """Take the runc handler out that we put in, unless somebody has added to it."""
    for each in toml.statements(text):
        line = text[each.start : each.end].replace("\r\n", "\n")
        if each.header and each.path == path and line.endswith(_MARK):
            untouched = toml.look_up(tomllib.loads(text), path) == _KEPT
            return toml.without_table(text, path) if untouched else text
    return text


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
        cri = toml.look_up(document, ("plugins", plugin, "containerd")) or {}
        handlers = cri.get("runtimes", {})
        for name in (cri.get("default_runtime_name"), "runc"):
            if name != NAME and handlers.get(name, {}).get("runtime_type") == RUNC:
                return _not_zero(handlers[name])
    return {}


def _not_zero(table: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is Go's zero value: it is what a missing key means."""
    inner = {k: _not_zero(v) if isinstance(v, dict) else v for k, v in table.items()}
    return {key: value for key, value in inner.items() if value not in ("", 0, False, [], {})}


def _imports(file: File) -> list[Path]:
    """Give the files that the main file imports, and ours if it would."""
    found: list[Path] = []
    for each in file.document.get("imports", []):
        pattern = os.path.join(file.path.parent, str(each))
        found += map(Path, sorted(glob.glob(pattern)))
        if fnmatch.fnmatchcase(str(_drop_in(file.path)), pattern):
            found.append(_drop_in(file.path))
    return found


def _refuse_replaced(file: File) -> None:
    """Refuse to write what an imported file makes containerd 1.x ignore."""
    for path in _imports(file):
        if any(plugin.encode() in (content(path) or b"") for plugin in CRI.values()):
            raise ShimError(
                f"is imported by {file.path}, and containerd 1.x takes its CRI section alone",
                subject=str(path),
                hint=f"register there: --config {path}",
            )


def _drop_in(main: Path) -> Path:
    return main.parent / DROP_IN


def _release(host: Host) -> tuple[int, ...]:
    """Give the numbers of containerd's version; nothing where it cannot be asked."""
    program = host.program("containerd")
    if program is None:
        return ()
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(map(int, found.groups())) if found else ()
