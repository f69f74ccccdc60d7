"""What Podman's configuration says, put together as Podman does."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from shim.engines import toml
from shim.engines.registration import Host
from shim.engines.registration.changes import content

DROP_IN = "containers.conf.d/99-seccomp-shim.conf"
# Not hooks.d: CRI-O may read that, and refuses to start over an entry for the stage precreate.
HOOKS = "oci/podman-hooks.d"
RUNTIMES = ("crun", "runc")
HOOKS_DEFAULT = ["/usr/share/containers/oci/hooks.d"]
SYSTEM = ("/usr/share/containers", "/etc/containers")
_PLACES = "/usr/bin /usr/sbin /usr/local/bin /usr/local/sbin /sbin /bin"
_LAST = {
    "crun": ["/run/current-system/sw/bin/crun"],
    "runc": ["/usr/lib/cri-o-runc/sbin/runc", "/run/current-system/sw/bin/runc"],
}


class Conf(NamedTuple):
    """What containers.conf and its drop-in files say, ours left out, and who says it last."""

    engine: dict[str, Any]
    last: dict[tuple[str, ...], Path]


def folder_of(host: Host) -> Path:
    """Return the directory containers/ to write to: the system's for root, else the user's own."""
    if os.geteuid() == 0:
        return host.path(SYSTEM[1])
    own = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(own) if own.startswith("/") else host.home / ".config") / "containers"


def read(directory: Path, host: Host) -> Conf:
    """Read what podman reads, in its order; our own file and the user's for root are left out."""
    engine: dict[str, Any] = {}
    last: dict[tuple[str, ...], Path] = {}
    for path in _files(directory, host):
        data = content(path)
        found = engine_of(toml.parse(data, str(path)), path) if data is not None else {}
        runtimes = {**engine.get("runtimes", {}), **found.get("runtimes", {})}
        engine |= found | ({"runtimes": runtimes} if runtimes else {})
        keys: list[tuple[str, ...]] = [(key,) for key in found if key != "runtimes"]
        keys += [("runtimes", name) for name in found.get("runtimes", {})]
        last.update(dict.fromkeys(keys, path))
    return Conf(engine, last)


def _files(directory: Path, host: Host) -> Iterator[Path]:
    system = [host.path(each) for each in SYSTEM]
    for each in [*system, *({directory} - set(system))]:
        yield each / "containers.conf"
        for path in sorted((each / "containers.conf.d").glob("*.conf")):
            if path != directory / DROP_IN:
                yield path


def overruling(engine: dict[str, Any], conf: Conf, directory: Path) -> Iterator[Path]:
    """Yield the files that are read after ours and say the same otherwise."""
    ours = directory / DROP_IN
    for key, path in conf.last.items():
        behind = path.parent == ours.parent and path.name > ours.name
        if behind and toml.look_up(engine, key) is not None:
            yield path


def engine_of(document: dict[str, Any], where: Path) -> dict[str, Any]:
    """Return the table ``engine`` of a containers.conf."""
    table = dict(toml.a_table(document, ("engine",), where))
    if "runtimes" in table:
        found = toml.a_table(table, ("runtimes",), where)
        table["runtimes"] = {name: toml.a_list(found, name, where) for name in found}
    if "hooks_dir" in table:
        table["hooks_dir"] = toml.a_list(table, "hooks_dir", where)
    return table


def paths(name: str, conf: Conf, host: Host) -> list[str]:
    """Return the paths at which podman looks for runtime ``name`` without us."""
    default = [f"{place}/{name}" for place in _PLACES.split()] + _LAST.get(name, [])
    ours = str(host.executable(f"seccomp-shim-{name}"))
    return [path for path in conf.engine.get("runtimes", {}).get(name, default) if path != ours]


def real(name: str, conf: Conf, host: Host) -> str | None:
    """Return the path of the runtime that podman starts by ``name`` without us."""
    if name.startswith("/"):
        return name
    found = (path for path in paths(name, conf, host) if host.path(path).is_file())
    return next(found, None) or host.program(name)
