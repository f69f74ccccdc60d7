"""Compose files: the profiles that services name in ``security_opt``."""

import os
import re
from fnmatch import fnmatch

from shim.discovery.collector import Collector, Lines

_FOLDERS = ("/etc", "/opt", "/srv")
_NAMES = ("compose*.y*ml", "docker-compose*.y*ml")
_DEPTH = 4


def collect(collector: Collector) -> None:
    """Look for compose files where services are usually kept."""
    for directory in (*_FOLDERS, *collector.homes):
        for path in collector.files(directory, _DEPTH):
            name = os.path.basename(path)
            if any(fnmatch(name, each) for each in _NAMES):
                composition(collector, path)


def composition(collector: Collector, path: str) -> None:
    """Note the profiles that a compose file names; other files are passed over."""
    text = collector.text(path)
    if text is None or "security_opt" not in text or "seccomp" not in text:
        return
    lines = Lines(text)
    for root in collector.yaml(path, text):
        services = root.get("services")
        for key, service in services.pairs if services else ():
            options = (service.alias or service).get("security_opt")
            for option in (options.alias or options).items if options else ():
                found = re.fullmatch(r"seccomp[:=](.+)", str((option.alias or option).value))
                if found and found[1] != "unconfined" and not found[1].startswith("{"):
                    file = os.path.normpath(os.path.join(os.path.dirname(path), found[1]))
                    collector.used(file, f"service {key.value}", path, lines.at(option.start))
