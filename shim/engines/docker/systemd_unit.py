"""The flags that docker.service, its drop-ins or DOCKER_OPTS start dockerd with."""

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from shim.engines.docker.dockerd import Flags
from shim.engines.registration import Host

# systemd.unit(5): the first place that has the unit counts, drop-ins count from all of them.
_UNITS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system")
_VENDOR_UNITS = ("/usr/lib/systemd/system", "/lib/systemd/system")


def flags(host: Host) -> list[Flags]:
    """Return the flags that the service's files start dockerd with."""
    sources: list[Path] = []
    directories = [host.path(directory) for directory in (*_UNITS, *_VENDOR_UNITS)]
    units = [directory / "docker.service" for directory in directories]
    sources += [unit for unit in units if unit.is_file()][:1]
    drop_ins = {
        path.name: path
        for directory in reversed(directories)
        for path in directory.glob("docker.service.d/*.conf")
    }
    sources += [drop_ins[name] for name in sorted(drop_ins)]
    environment: dict[str, str] = {}
    start: Flags | None = None
    for source in sources:
        for key, value in _settings(source):
            if key == "Environment":
                environment.update(_assignments(_split(value)))
            elif key == "EnvironmentFile":
                environment.update(_environment(host.path(value.removeprefix("-"))))
            elif key == "ExecStart":
                start = Flags(str(source), tuple(_split(value)))
    if start:
        return [Flags(start.source, tuple(_expanded(start.words, environment)))]
    found = _environment(host.path("/etc/default/docker")).get("DOCKER_OPTS", "")
    return [Flags(str(host.path("/etc/default/docker")), tuple(_split(found)))] if found else []


def _settings(unit: Path) -> Iterator[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", unit.read_text(encoding="utf-8", errors="replace"))
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith(("#", ";")):
            yield key.strip(), value.strip()


def _environment(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    plain = [line.strip().removeprefix("export ") for line in lines]
    return _assignments(
        word for line in plain if line and line[0] not in "#;" for word in _split(line)[:1]
    )


def _assignments(words: Iterable[str]) -> dict[str, str]:
    return {key: value for key, equals, value in (w.partition("=") for w in words) if equals}


def _expanded(words: Iterable[str], environment: dict[str, str]) -> Iterator[str]:
    """Put in variables as systemd does: ``$X`` alone is split into words, ``${X}`` is not."""
    for word in words:
        if found := re.fullmatch(r"\$(\w+)", word):
            yield from _split(environment.get(found[1], ""))
        else:
            yield re.sub(r"\$\{(\w+)\}", lambda name: environment.get(name[1], ""), word)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an open quote
        return text.split()
