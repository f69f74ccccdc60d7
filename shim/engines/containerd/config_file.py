"""Our handler in the text of containerd's configuration: in the main file, or one it imports."""

import argparse
import copy
import fnmatch
import glob
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shim.engines import toml
from shim.engines.registration import Host, dropin, executable
from shim.engines.registration.changes import Edit, content
from shim.errors import ShimError

CONFIG = "/etc/containerd/config.toml"
NAME = "seccomp-shim"
# The second sorts behind whatever begins with a digit, as 99-nvidia.toml.
DROP_INS = ("conf.d/90-seccomp-shim.toml", "conf.d/zz-seccomp-shim.toml")
RUNC = "io.containerd.runc.v2"
# The plugin that has the runtimes, by version of the configuration file.
CRI = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
# Where a handler has the program that it calls.
PROGRAM = ("options", "BinaryName")
_KEPT = {"runtime_type": RUNC}
_MARK = "# kept by seccomp-shim: containerd 1.x forgets it once it is told of another handler\n"


def main(options: argparse.Namespace, host: Host) -> Path:
    """Return the place of the main file: the one that was named, or the usual one."""
    return host.path(options.config or CONFIG)


class ConfigFile(NamedTuple):
    """The main file: its text, what it says, and where it keeps the runtimes."""

    path: Path
    data: bytes | None
    text: str
    document: dict[str, Any]
    version: int

    @property
    def cri(self) -> tuple[str, ...]:
        """Return the way to the table with ``default_runtime_name`` and ``runtimes``."""
        return ("plugins", CRI[self.version], "containerd")


def read(path: Path, version_if_new: int) -> ConfigFile:
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
    return ConfigFile(path, data, text, document, version)


class Wanted(NamedTuple):
    """What is to be in the configuration: handlers by name, and whether ours is the default."""

    handlers: dict[str, dict[str, Any]]
    default: bool


def main_edit(file: ConfigFile, wanted: Wanted) -> Edit:
    """Put the handlers into the main file; ShimError: it is written so that they cannot be."""
    text = file.text
    document = copy.deepcopy(file.document)
    cri = _made(document, file.cri, file.path)
    runtimes = _made(cri, ("runtimes",), file.path)
    if file.version == 2 and not runtimes.keys() - {NAME}:
        header, _, body = toml.table((*file.cri, "runtimes", "runc"), _KEPT).partition("\n")
        text = toml.append(text, f"{header} {_MARK}{body}")
        runtimes["runc"] = _KEPT
    for name, handler in wanted.handlers.items():
        old, path = runtimes.get(name), (*file.cri, "runtimes", name)
        if name != NAME and old is not None:
            # Somebody else's: only its program changes.
            program = toml.look_up(handler, PROGRAM)
            text = toml.with_value(text, (*path, *PROGRAM), program)
            _made(old, PROGRAM[:1], file.path)[PROGRAM[1]] = program
        elif old != handler:
            text = toml.append(toml.without_table(text, path), toml.table(path, handler))
            runtimes[name] = handler
    if wanted.default and cri.get("default_runtime_name") != NAME:
        text = toml.with_value(text, (*file.cri, "default_runtime_name"), NAME)
        cri["default_runtime_name"] = NAME
    try:
        done = tomllib.loads(text) == document
    except tomllib.TOMLDecodeError:
        done = False
    if not done:
        raise ShimError(
            "writes its tables inline, where no handler can be added at the end",
            subject=str(file.path),
            hint=f"write [{'.'.join(file.cri)}] and the tables in it under headers of their own",
        )
    return Edit(file.path, file.data, text.encode())


def _made(document: dict[str, Any], path: Sequence[str], where: Path) -> dict[str, Any]:
    """Return the table at ``path``, made where it is not there yet."""
    for name in path:
        document.setdefault(name, {})
        document = toml.a_table(document, (name,), where)
    return document


def drop_in_text(file: ConfigFile, wanted: Wanted, now: str) -> str:
    """Return the text of a file of our own, which is ``now``, for a main file like ``file``."""
    text = now or f"{dropin.header('containerd')}version = {file.version}\n"
    if wanted.default:
        text = toml.with_value(text, (*file.cri, "default_runtime_name"), NAME)
    for name, handler in wanted.handlers.items():
        path = (*file.cri, "runtimes", name)
        text = toml.append(toml.without_table(text, path), toml.table(path, handler))
    return text


def _without_kept_runc(text: str, path: tuple[str, ...]) -> str:
    """Take the runc handler out that we put in, unless somebody has added to it."""
    for each in toml.statements(text):
        line = text[each.start : each.end].replace("\r\n", "\n")
        if each.header and each.path == path and line.endswith(_MARK):
            untouched = toml.look_up(tomllib.loads(text), path) == _KEPT
            return toml.without_table(text, path) if untouched else text
    return text


def imports(file: ConfigFile, ours: Sequence[Path] = ()) -> list[Path]:
    """Return the files that the main file imports, in containerd's order; ``ours`` if it would.

    Patterns in the order in which they are given, the files of each by name (containerd 2.1,
    cmd/containerd/server/config, resolveImports): the last one wins.
    """
    found: list[Path] = []
    for each in toml.a_list(file.document, "imports", file.path):
        pattern = os.path.join(file.path.parent, str(each))
        matching = [str(path) for path in ours if fnmatch.fnmatchcase(str(path), pattern)]
        found += map(Path, sorted({*glob.glob(pattern), *matching}))
    return found


def refuse_replaced(file: ConfigFile) -> None:
    """Refuse to write what an imported file makes containerd 1.x ignore."""
    for path in imports(file):
        if any(plugin.encode() in (content(path) or b"") for plugin in CRI.values()):
            raise ShimError(
                f"is imported by {file.path}, and containerd 1.x takes its CRI section alone",
                subject=str(path),
                hint=f"register there: --config {path}",
            )


def drop_ins(main: Path) -> list[Path]:
    """Return the places that a file of our own may have beside the main one."""
    return [main.parent / each for each in DROP_INS]


def without(path: Path, now: bytes, original: bytes | None) -> bytes | None:
    """Take our handlers out, and the default that names one; others get their program back."""
    document = toml.parse(now, str(path))
    text = now.decode()
    if path.name in {Path(each).name for each in DROP_INS}:
        cri = ("plugins", CRI.get(document.get("version", 1), ""), "containerd")
        default = (*cri, "default_runtime_name")
        ours = [default] if toml.look_up(document, default) == NAME else []
        for name in [NAME, *fronted(document, cri)]:
            text = toml.without_table(text, (*cri, "runtimes", name))
        return dropin.without(path, text.encode(), "containerd", ours)
    before = tomllib.loads((original or b"").decode())
    for plugin in CRI.values():
        cri = ("plugins", plugin, "containerd")
        text = toml.without_table(text, (*cri, "runtimes", NAME))
        text = _without_kept_runc(text, (*cri, "runtimes", "runc"))
        for name, script in fronted(document, cri).items():
            text = _unfronted(text, (*cri, "runtimes", name), before, script)
        key = (*cri, "default_runtime_name")
        if toml.look_up(tomllib.loads(text), key) == NAME:
            old = toml.look_up(before, key)
            text = toml.with_value(text, key, old) if old else toml.without_key(text, key)
    return text.encode()


def fronted(document: Mapping[str, Any], cri: Sequence[str]) -> dict[str, str]:
    """Return the handlers of others that we stand in front of, with the program that does."""
    handlers = toml.look_up(document, (*cri, "runtimes")) or {}
    found = {name: toml.look_up(each, PROGRAM) for name, each in handlers.items()}
    return {name: str(p) for name, p in found.items() if name != NAME and executable.is_ours(p)}


def _unfronted(text: str, path: tuple[str, ...], before: dict[str, Any], script: str) -> str:
    """Return a handler of somebody else its program back."""
    if before and toml.look_up(before, path) is None:
        return toml.without_table(text, path)  # copied from another file
    key = (*path, *PROGRAM)
    old = toml.look_up(before, key) or executable.real_of(Path(script))
    if old:
        return toml.with_value(text, key, old)
    return dropin.without_bare_header(toml.without_key(text, key), key[:-1])
