"""systemd's units: filters of their own, which are only listed, and profiles they name."""

import re

from shim.discovery.collector import Collector, Lines

FOLDERS = (
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


def collect(collector: Collector) -> None:
    """Look at units and at Podman's quadlets."""
    seen = set()
    for directory in FOLDERS:
        for path in collector.files(directory, depth=1):
            real = collector.root.real(path)
            if path.endswith(_UNITS) and real not in seen:
                seen.add(real)
                _unit(collector, path)
    quadlets = [*_QUADLETS, *(f"{home}/.config/containers/systemd" for home in collector.homes)]
    for directory in quadlets:
        for path in collector.files(directory, depth=3):
            if path.endswith((".container", ".kube")):
                _unit(collector, path)


def _unit(collector: Collector, path: str) -> None:
    text = collector.text(path)
    if text is None:
        return
    lines = Lines(text)
    for found in _PROFILE.finditer(text):
        collector.used(found[1], "unit", path, lines.at(found.start(1)))
    filters = list(_FILTER.finditer(text))
    if filters:
        first = filters[0]
        what = "denies what it lists" if first[1].startswith("~") else "allows only what it lists"
        collector.filters.append((path, lines.at(first.start(1)), what))
