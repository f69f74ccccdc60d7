"""systemd's units: filters of their own, which are only listed, and profiles they name."""

import re

from shim.discovery.collector import Lines, Look

_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
_QUADLETS = ("/etc/containers/systemd", "/usr/share/containers/systemd")
_UNITS = (".service", ".socket", ".mount", ".swap", ".conf", ".nspawn")
_PROFILE = re.compile(
    r"(?:^[ \t]*SeccompProfile[ \t]*=[ \t]*|--security-opt[= ][\"']?seccomp[=:])(/[^\s\"']+)",
    re.MULTILINE,
)
_FILTER = re.compile(r"^[ \t]*SystemCallFilter[ \t]*=[ \t]*(\S.*)$", re.MULTILINE)


def look(look: Look) -> None:
    """Look at units and at Podman's quadlets."""
    seen = set()
    for directory in _FOLDERS:
        for path in look.files(directory, depth=1):
            real = look.root.real(path)
            if path.endswith(_UNITS) and real not in seen:
                seen.add(real)
                _unit(look, path)
    quadlets = [*_QUADLETS, *(f"{home}/.config/containers/systemd" for home in look.homes)]
    for directory in quadlets:
        for path in look.files(directory, depth=3):
            if path.endswith((".container", ".kube")):
                _unit(look, path)


def _unit(look: Look, path: str) -> None:
    text = look.text(path)
    if text is None:
        return
    lines = Lines(text)
    for found in _PROFILE.finditer(text):
        look.used(found[1], "unit", path, lines.at(found.start(1)))
    filters = list(_FILTER.finditer(text))
    if filters:
        first = filters[0]
        what = "denies what it lists" if first[1].startswith("~") else "allows only what it lists"
        look.filters.append((path, lines.at(first.start(1)), what))
