"""What containerd's files say of us, what it makes of them, and what the running one has read."""

import argparse
from typing import Any

from shim.engines import toml
from shim.engines.containerd import config_dump, config_file
from shim.engines.containerd.config_file import CRI, NAME, PROGRAM, ConfigFile, Wanted
from shim.engines.registration import Host, executable
from shim.engines.registration.changes import content
from shim.engines.registration.status import EngineStatus, StatusEntry
from shim.errors import ShimError


class ContainerdStatus(EngineStatus):
    """containerd's."""

    DOCUMENT = (
        "engine present registered entries default covers not_covered covers_all unseen in_use "
        "running known problems notes"
    )


def status(options: argparse.Namespace, host: Host) -> EngineStatus:
    """Tell what the files say of us, and what containerd makes of them and has read."""
    entries, default = entries_of(options, host)
    problems = [
        f"{each.file}: {each.path} is not there: its pods cannot start"
        for each in entries
        if not each.exists
    ]
    notes = [] if entries else ["ctr needs no registration: ctr run --runc-binary"]
    file = config_file.read(config_file.main(options, host), 2) if entries else None
    cri = config_dump.in_force(file, host) if file else None
    if file and cri:
        problems += _overruling(file, cri, entries, ours_default=default == NAME)
        default = cri.get("default_runtime_name")
    running = config_dump.running(options, host)
    problems += config_dump.unread(running, cri or {}, entries, default == NAME)
    known = running and config_dump.programs(running)
    blind = host.program("containerd") and running is None
    return ContainerdStatus(
        engine="containerd",
        present=host.program("containerd") is not None,
        registered=bool(entries),
        entries=entries,
        default=bool(entries) and default == NAME,
        coverage=executable.coverage(names(entries), default=default == NAME),
        unseen=executable.unseen("containerd") if blind else [],
        in_use=bool(entries or known or config_dump.started(options, host)),
        running=None if running is None else True,
        known=None if running is None else not problems,
        problems=problems,
        notes=notes,
    )


def entries_of(options: argparse.Namespace, host: Host) -> tuple[list[StatusEntry], str | None]:
    """Return our entries in the files, and the default that they name."""
    entries: list[StatusEntry] = []
    default = None
    main = config_file.main(options, host)
    for path in [main, *config_file.drop_ins(main)]:
        data = content(path)
        document = toml.parse(data, str(path)) if data is not None else {}
        for plugin in CRI.values():
            table = ("plugins", plugin, "containerd")
            default = toml.look_up(document, (*table, "default_runtime_name")) or default
            found = config_file.fronted(document, table)
            if ours := toml.look_up(document, (*table, "runtimes", NAME, *PROGRAM)):
                found[NAME] = str(ours)
            for name, program in found.items():
                entries += [
                    e for e in executable.entries(host, path, name, program) if e not in entries
                ]
    return entries, default


def names(entries: list[StatusEntry]) -> list[str]:
    """Return the handlers of ours among ``entries``."""
    return [each.name for each in entries if each.handler]


def _overruling(
    file: ConfigFile, cri: dict[str, Any], entries: list[StatusEntry], *, ours_default: bool
) -> list[str]:
    """Say which other file is read after ours and says otherwise."""
    meant = {e.name: {"options": {"BinaryName": e.path}} for e in entries if e.handler}
    ours = {path: b"" for path in config_file.drop_ins(file.path) if content(path) is not None}
    try:
        config_dump.check(file, cri, ours, Wanted(meant, ours_default))
    except ShimError as error:
        return [f"{error.subject}: {error.message}"]
    return []
