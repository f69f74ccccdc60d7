"""Installing and uninstalling for an engine below a directory that stands for a host's root."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shim.engines import registration
from shim.engines.registration import Host, RegistrationPlan, changes

BIN = Path("/opt/seccomp-shim/bin")


def host(root: Path, search: str = "") -> Host:
    """Return a host below ``root`` with our executables, and engines' programs in ``search``."""
    for name in ("hook", "verify", "precreate", "runtime", "runc", "crun"):
        file = root / "opt/seccomp-shim/bin" / f"seccomp-shim-{name}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    state = root / "var/lib/seccomp-shim/engines"
    log = root / "var/log/audit.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    return Host(root, BIN, root / "root", state, str(log), search)


def program(folder: Path, name: str, script: str) -> None:
    """Put an executable shell script into ``directory``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def options(
    engine: str, words: Sequence[str] = (), *, uninstall: bool = False
) -> argparse.Namespace:
    """Parse an engine's own options."""
    parser = argparse.ArgumentParser()
    module = registration.load(engine)
    (module.uninstall_options if uninstall else module.install_options)(parser)
    return parser.parse_args(words)


def install(engine: str, host: Host, *words: str) -> RegistrationPlan:
    """Do what ``seccomp-shim install ENGINE WORDS`` does."""
    module = registration.load(engine)
    plan = module.plan(options(engine, words), host)
    changes.apply(engine, plan.edits, module.without, host.state, host.log, default=plan.default)
    return plan


def uninstall(engine: str, host: Host, *words: str) -> list[str]:
    """Do what ``seccomp-shim uninstall ENGINE WORDS`` does; give what it says."""
    module = registration.load(engine)
    chosen = options(engine, words, uninstall=True)
    places = module.places(chosen, host)
    edits = changes.rolling_back(engine, places, module.without, host.state)
    edits, notes = module.removal(chosen, host, edits)
    changes.roll_back(engine, edits, host.state, host.log)
    return notes


def status(engine: str, host: Host) -> dict[str, Any]:
    """Return what ``seccomp-shim status ENGINE --json`` says."""
    module = registration.load(engine)
    return module.status(options(engine, uninstall=True), host)


def files(folder: Path) -> dict[str, bytes | str]:
    """Return the content of each file below ``directory``, and where each symbolic link leads."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
