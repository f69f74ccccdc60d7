"""Installing and uninstalling for an engine below a directory that stands for a host's root."""

from pathlib import Path
from typing import Any

from shim.engines import registration, service
from shim.engines.registration import Host
from shim.engines.service import PlannedChange

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


def install(engine: str, host: Host, *words: str) -> PlannedChange:
    """Do what ``seccomp-shim install ENGINE WORDS`` does; give what was planned."""
    plan = service.plan_install(engine, service.options(engine, "install", words), host)
    service.make(plan)
    return plan


def uninstall(engine: str, host: Host, *words: str) -> list[str]:
    """Do what ``seccomp-shim uninstall ENGINE WORDS`` does; give what it says."""
    plan = service.plan_uninstall(engine, service.options(engine, "uninstall", words), host)
    service.make(plan)
    return list(plan.notes)


def status(engine: str, host: Host) -> dict[str, Any]:
    """Return what the engine's module says for ``seccomp-shim status ENGINE --json``."""
    options = service.options(engine, "status")
    return registration.load(engine).status(options, host).document()


def files(folder: Path) -> dict[str, bytes | str]:
    """Return the content of each file below ``directory``, and where each symbolic link leads."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
