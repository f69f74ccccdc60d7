"""What SystemCallFilter= of one systemd unit says of a call, and the drop-in that adds to it.

After systemd.unit(5) and systemd.exec(5): a unit is its file and its drop-ins, in the order of
their names whatever directory they are in; an entry of the same name in a directory that comes
first takes the other's place. A link to it is another name of it, with drop-ins. The first entry
tells whether the list allows or denies.
"""

import os
import re
import stat
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from shim.discovery.root import Root
from shim.discovery.sources.units import FOLDERS
from shim.errors import ShimError

DROP_IN = "zz-seccomp-shim.conf"
_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+\.service", re.ASCII)
_SECONDS = 20
_ADMIN = "/etc/systemd/system"
_HEAD = "# Written by seccomp-shim (patch --unit): calls that are newer than this unit's list.\n"


class UnitFilter(NamedTuple):
    """The entries of a unit's list, in order, each with its file and line; none: no filter."""

    unit: str
    entries: tuple[tuple[str, int, str], ...]

    @property
    def allows(self) -> bool:
        """Tell whether it is a list of what is allowed."""
        return bool(self.entries) and not self.entries[0][2].startswith("~")

    def place(self) -> str:
        """Name the file and line that began the list."""
        path, line, _ = self.entries[0]
        return f"{path}:{line}"

    def verdict(self, call: str, groups: Mapping[str, frozenset[str]]) -> tuple[str, str]:
        """Return ``allows``, ``denied-by-default`` or ``explicit-deny``, and why."""
        word, why = "denied-by-default", f"is not in the list that begins at {self.place()}"
        for path, line, value in self.entries:
            inverted = value.startswith("~")
            for each in value.removeprefix("~").split():
                name = each.partition(":")[0]
                unknown = inverted and name.startswith("@") and name not in groups
                if unknown or call == name or call in groups.get(name, ()):
                    word = "explicit-deny" if inverted else "allows"
                    what = "perhaps denied" if unknown else "denied" if inverted else "allowed"
                    why = f"{what} by {each} at {path}:{line}"
        return word, why


def read(root: Root, name: str) -> UnitFilter:
    """Read a service's filter; ShimError: there is no such unit, or its name is none."""
    unit = name if name.endswith(".service") else f"{name}.service"
    if not _NAME.fullmatch(unit):
        raise ShimError("is no name of a service", subject=name)
    template = re.sub(r"@[^.]+(?=\.service$)", "@", unit)
    main = next((found for each in (unit, template) if (found := _first(root, each))), "")
    if not main:
        raise ShimError("no such unit", subject=unit, hint=f"looked in {', '.join(FOLDERS)}")
    names = dict.fromkeys(("service", *_aliases(root, main, unit), *_prefixes(template)))
    names |= dict.fromkeys((template, unit))
    drop_ins: dict[str, str] = {}
    for folder in FOLDERS:
        for each in reversed(names):
            for path in _listed(root, f"{folder}/{each}.d"):
                drop_ins.setdefault(os.path.basename(path), path)
    entries: list[tuple[str, int, str]] = []
    for path in (main, *(drop_ins[each] for each in sorted(drop_ins))):
        for line, value in _values(_text(root, path)):
            if value:
                entries.append((path, line, value))
            else:
                entries.clear()  # an empty one takes back all before it
    return UnitFilter(unit, tuple(entries))


def groups(text: str) -> dict[str, frozenset[str]]:
    """Read systemd's sets of calls (``@default``), as ``systemd-analyze syscall-filter`` tells."""
    found: dict[str, set[str]] = {}
    name = ""
    for line in text.splitlines():
        word = line.strip()
        if line.startswith("@"):
            name = word
            found[name] = set()
        elif name and line.startswith(" ") and word and not word.startswith("#"):
            found[name].add(word)

    def whole(each: str, above: frozenset[str]) -> frozenset[str]:
        inner = {word for word in found.get(each, ()) if word.startswith("@")} - above
        calls = {word for word in found.get(each, ()) if not word.startswith("@")}
        return frozenset(calls).union(*(whole(word, above | {each}) for word in inner))

    return {each: whole(each, frozenset()) for each in found}


def groups_here() -> dict[str, frozenset[str]]:
    """Return the sets of the systemd that is installed here; none where it does not tell."""
    try:
        done = subprocess.run(
            ["systemd-analyze", "syscall-filter"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            env={**os.environ, "LC_ALL": "C", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return groups(done.stdout)


def drop_in(unit: str) -> str:
    """Return the path of our drop-in: the admin's directory, a name that sorts last."""
    return f"{_ADMIN}/{unit}.d/{DROP_IN}"


def content(before: bytes, calls: Iterable[str]) -> bytes:
    """Return what the drop-in becomes with ``calls``; one that is there gets a line more."""
    text = before.decode("utf-8", "replace") or f"{_HEAD}[Service]\n"
    return f"{text}SystemCallFilter={' '.join(calls)}\n".encode()


def _prefixes(unit: str) -> list[str]:
    """Return the names that stand for all units with the same beginning: ``a-.service``."""
    parts = unit.removesuffix(".service").split("-")
    return [f"{'-'.join(parts[:count])}-.service" for count in range(1, len(parts))]


def _aliases(root: Root, main: str, unit: str) -> list[str]:
    """Return all names that have drop-ins for the file ``main``, of which ``unit`` is one."""
    target, instance = root.real(main), unit.partition("@")[2]
    found = {os.path.basename(target)}
    for folder in FOLDERS:
        for path in _listed(root, folder, stat.S_IFLNK):
            with suppress(ShimError):  # a link that others can change
                if root.real(path) == target:
                    found.add(os.path.basename(path))
    names = []
    for each in sorted(found):
        names += [*_prefixes(each), each]
        if instance and each.endswith("@.service"):
            names.append(each.removesuffix(".service") + instance)
    return names


def _first(root: Root, unit: str) -> str:
    for folder in FOLDERS:
        path = f"{folder}/{unit}"
        try:
            if root.read(path) is not None:
                return path
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ShimError(error.strerror or str(error), subject=path) from None
    return ""


def _listed(root: Root, directory: str, kind: int = 0) -> list[str]:
    """Return the drop-ins in a directory, or what else is of a ``kind``; ShimError: not to be read.

    What is not read may deny a call.
    """
    try:
        entries = root.entries(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ShimError(error.strerror or str(error), subject=directory) from None
    return [
        f"{directory}/{name}"
        for name, type_ in entries
        if (type_ == kind if kind else name.endswith(".conf"))
    ]


def _text(root: Root, path: str) -> str:
    try:
        return root.read(path).decode("utf-8", "replace")
    except OSError as error:
        raise ShimError(error.strerror or str(error), subject=path) from None


def _values(text: str) -> list[tuple[int, str]]:
    """Return each SystemCallFilter= of the section [Service], and its line."""
    found = []
    section, whole, begun = "", "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if whole and line.lstrip().startswith(("#", ";")):
            continue
        begun = begun if whole else number
        whole += line
        if whole.endswith("\\"):
            whole = f"{whole[:-1]} "
            continue
        word, whole = whole.strip(), ""
        key, equals, value = word.partition("=")
        if word.startswith("["):
            section = word
        elif section == "[Service]" and equals and key.strip() == "SystemCallFilter":
            found.append((begun, value.strip()))
    return found
