"""Drop-in files: written whole by us, and the admin's as well once there is more in them."""

import itertools
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path

from shim import config
from shim.engines import toml
from shim.engines.registration import Host
from shim.errors import ShimError


def header(engine: str) -> str:
    """Return the first line of a file of ours."""
    return (
        f"# Written by seccomp-shim install {engine}; seccomp-shim uninstall {engine} removes it.\n"
    )


def program(host: Host, name: str) -> str:
    """Return the path of our executable ``name``; ShimError: it is not there."""
    path = host.executable(name)
    if not os.access(host.path(str(path)), os.X_OK):
        raise ShimError("is not there", subject=str(path), hint="run install.sh first")
    return str(path)


def absence(host: Host, engine: str) -> list[str]:
    """Say that nobody reads what is written, where ``engine`` is not installed."""
    if host.program(engine):
        return []
    return [f"{engine} is not on PATH: if it is not installed, nobody reads this yet"]


def kept_runtime(host: Host, name: str, path: str, whose: str) -> list[str]:
    """Say what to set where the wrapper would not start ``path`` as its real runtime ``name``."""
    settings, _ = config.load(str(host.path(config.PATH)))
    taken = settings["runtimes"].get(name) or host.program(name) or ""
    if os.path.realpath(taken) in {os.path.realpath(path), os.path.realpath(host.path(path))}:
        return []
    return [
        f"{whose} starts {path}, the wrapper {taken or f'any {name} on PATH'}: to keep the first, "
        f"name it in /etc/seccomp-shim/config.yaml (runtimes: {name}: {path})"
    ]


def without(
    path: Path,
    now: bytes,
    engine: str,
    keys: Iterable[tuple[str, ...]],
    table: tuple[str, ...] = (),
) -> bytes | None:
    """Take our keys, our table and the first line out; None: nothing else is left."""
    toml.parse(now, str(path))
    text = now.decode().replace(header(engine), "", 1)
    if table:
        text = toml.without_table(text, table)
    for key in keys:
        text = toml.without_key(text, key)
        text = without_bare_header(text, key[:-1])
    if tomllib.loads(text).keys() == {"version"}:  # of entries that are no more
        text = toml.without_key(text, ("version",))
    return text.encode() if text.strip() else None


def without_bare_header(text: str, path: tuple[str, ...]) -> str:
    """Take the header of a table out that no key follows."""
    said = [each for each in toml.statements(text) if each.path]
    for each, behind in itertools.zip_longest(said, said[1:]):
        if each.header and each.path == path and (behind is None or behind.header):
            return text[: each.start] + text[each.end :]
    return text
