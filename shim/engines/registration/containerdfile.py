"""Our handler in the text of containerd's configuration: in the main file, or one it imports."""

import copy
import fnmatch
import glob
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shim.engines import toml
from shim.engines.changes import Edit, content
from shim.engines.registration import dropin
from shim.errors import ShimError

NAME = "seccomp-shim"
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


def read(path: Path, version_if_new: int) -> File:
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


def main_edit(file: File, handler: dict[str, Any], default: bool) -> Edit:
    """Put the handler into the main file; ShimError: it is written so that it cannot be."""
    text = file.text
    wanted = copy.deepcopy(file.document)
    cri = _made(wanted, file.cri, file.path)
    runtimes = _made(cri, ("runtimes",), file.path)
    if file.version == 2 and not runtimes.keys() - {NAME}:
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


def _made(document: dict[str, Any], path: Sequence[str], where: Path) -> dict[str, Any]:
    """Give the table at ``path``, made where it is not there yet."""
    for name in path:
        document.setdefault(name, {})
        document = toml.a_table(document, (name,), where)
    return document


def drop_in_text(file: File, handler: dict[str, Any], default: bool) -> str:
    """Give the whole of a file of our own, for a main file like ``file``."""
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


def imports(file: File) -> list[Path]:
    """Give the files that the main file imports, and ours if it would."""
    found: list[Path] = []
    for each in toml.a_list(file.document, "imports", file.path):
        pattern = os.path.join(file.path.parent, str(each))
        found += map(Path, sorted(glob.glob(pattern)))
        if fnmatch.fnmatchcase(str(drop_in(file.path)), pattern):
            found.append(drop_in(file.path))
    return found


def refuse_replaced(file: File) -> None:
    """Refuse to write what an imported file makes containerd 1.x ignore."""
    for path in imports(file):
        if any(plugin.encode() in (content(path) or b"") for plugin in CRI.values()):
            raise ShimError(
                f"is imported by {file.path}, and containerd 1.x takes its CRI section alone",
                subject=str(path),
                hint=f"register there: --config {path}",
            )


def drop_in(main: Path) -> Path:
    """Give our own file beside the main one."""
    return main.parent / DROP_IN


def without(path: Path, now: bytes, original: bytes | None) -> bytes | None:
    """Take our tables out, and the default that names them."""
    document = toml.parse(now, str(path))
    if path.name == Path(DROP_IN).name:
        cri = ("plugins", CRI.get(document.get("version", 1), ""), "containerd")
        default = (*cri, "default_runtime_name")
        ours = [default] if toml.look_up(document, default) == NAME else []
        return dropin.without(path, now, "containerd", ours, (*cri, "runtimes", NAME))
    text = now.decode()
    before = tomllib.loads((original or b"").decode())
    for plugin in CRI.values():
        cri = ("plugins", plugin, "containerd")
        text = toml.without_table(text, (*cri, "runtimes", NAME))
        text = _without_kept_runc(text, (*cri, "runtimes", "runc"))
        key = (*cri, "default_runtime_name")
        if toml.look_up(tomllib.loads(text), key) == NAME:
            old = toml.look_up(before, key)
            text = toml.with_value(text, key, old) if old else toml.without_key(text, key)
    return text.encode()
