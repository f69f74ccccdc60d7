"""What containerd makes of its files: the installed program is asked, in a copy."""

import argparse
import contextlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shim.engines import cri as cri_service
from shim.engines import toml
from shim.engines.containerd import config_file
from shim.engines.containerd.config_file import CRI, NAME, PROGRAM, ConfigFile, Wanted
from shim.engines.registration import Host, changes, executable
from shim.engines.registration.status import StatusEntry
from shim.errors import ShimError

SOCKET = "/run/containerd/containerd.sock"
STATE = "/run/containerd"
ADDRESS = ("grpc", "address")


def release(host: Host) -> tuple[int, ...]:
    """Return the numbers of containerd's version; nothing where it cannot be asked."""
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", _asked(host, "--version") or "")
    return tuple(map(int, found.groups())) if found else ()


def dump(file: ConfigFile, text: bytes, ours: Mapping[Path, bytes], host: Host) -> Any:
    """Return what containerd makes of a main file with this ``text`` and these drop-ins of ours.

    None: it cannot be asked, or does not take the files as they are without us either. ShimError:
    it takes those, and not the result.
    """
    found = _dump(file, text, ours, host)
    if isinstance(found, str) and isinstance(_dump(file, *_without(file, host), host), dict):
        raise ShimError(f"containerd refuses the result: {found}", subject=str(file.path))
    return found if isinstance(found, dict) else None


def former(file: ConfigFile, host: Host) -> dict[str, Any]:
    """Return the table of the CRI service's runtimes as it is without us."""
    text, ours = _without(file, host)
    found = _dump(file, text, ours, host)
    return cri(found if isinstance(found, dict) else toml.parse(text, str(file.path)))


def cri(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table with ``default_runtime_name`` and ``runtimes``, of whichever version."""
    found = (toml.look_up(document, ("plugins", each, "containerd")) for each in CRI.values())
    return next((each for each in found if isinstance(each, dict)), {})


def in_force(file: ConfigFile, host: Host) -> dict[str, Any] | None:
    """Return that table as a containerd that starts now would have it; None: it cannot be asked."""
    there = {p: d for p in config_file.drop_ins(file.path) if (d := changes.content(p))}
    found = _dump(file, file.text.encode(), there, host)
    return cri(found) if isinstance(found, dict) else None


def running(options: argparse.Namespace, host: Host) -> dict[str, Any] | None:
    """Return that table as the running containerd has it; None: none runs, or it cannot be asked.

    Keys are those of the CRI service's answer, made those of the file.
    """
    found = cri_service.config(_socket(options, host))
    table = toml.look_up(found or {}, ("containerd",))
    if not isinstance(table, dict):
        return None
    return {
        "default_runtime_name": table.get("defaultRuntimeName"),
        "runtimes": table.get("runtimes") or {},
    }


def pods(options: argparse.Namespace, host: Host) -> list[str] | None:
    """Return the ids of the pods that asked for our handler; None: containerd cannot be asked."""
    return cri_service.pods(_socket(options, host), NAME)


def _socket(options: argparse.Namespace, host: Host) -> str:
    main = config_file.main(options, host)
    document = toml.parse(changes.content(main) or b"", str(main))
    return str(host.path(toml.look_up(document, ADDRESS) or SOCKET))


def started(options: argparse.Namespace, host: Host) -> dict[str, str]:
    """Return the running containers that were started by our executables: by id, which one.

    containerd's shim for runc keeps beside each task what it calls (runtime/v2/runc, WriteRuntime).
    """
    main = config_file.main(options, host)
    state = toml.parse(changes.content(main) or b"", str(main)).get("state") or STATE
    found = {}
    for file in sorted(host.path(str(state)).glob("io.containerd.runtime.v2.task/*/*/runtime")):
        with contextlib.suppress(OSError, UnicodeDecodeError):  # ended meanwhile
            if executable.is_ours(program := file.read_text(encoding="utf-8").strip()):
                found[file.parent.name] = program
    return found


def programs(table: Mapping[str, Any]) -> dict[str, str]:
    """Return the handlers that call an executable of ours, with it."""
    handlers = toml.look_up(table, ("runtimes",)) or {}
    found = {name: toml.look_up(each, PROGRAM) for name, each in handlers.items()}
    return {name: str(program) for name, program in found.items() if executable.is_ours(program)}


def unread(
    now: Mapping[str, Any] | None,
    file: Mapping[str, Any],
    entries: Sequence[StatusEntry],
    default: bool,
) -> list[str]:
    """Say what the running containerd, which has ``now``, has not read since."""
    if now is None:
        return []
    ours = programs(file) or {e.name: e.path for e in entries if e.handler}
    if programs(now) == ours and (now["default_runtime_name"] == NAME) == default:
        return []
    if not entries:
        return ["the running containerd has what was taken out until it is restarted"]
    return ["the running containerd has not read its files since: restart it when it suits"]


def check(file: ConfigFile, cri: dict[str, Any], ours: dict[Path, bytes], wanted: Wanted) -> None:
    """Compare what containerd makes of its files with what was meant. ShimError: it is not so."""
    for name, handler in wanted.handlers.items():
        found = toml.look_up(cri, ("runtimes", name, *PROGRAM))
        if found != toml.look_up(handler, PROGRAM):
            raise _overruled(file, ours, name, f"{name} calls {found or 'runc'}")
    default = cri.get("default_runtime_name")
    if wanted.default and default != NAME:
        raise _overruled(file, ours, "default_runtime_name", f"the default is {default}")


def _overruled(file: ConfigFile, ours: dict[Path, bytes], what: str, said: str) -> ShimError:
    """Return the error that names the files which are read after ours and say otherwise."""
    order = config_file.imports(file, list(ours))
    behind = order[max((order.index(path) for path in ours), default=-1) + 1 :]
    named = [str(path) for path in behind if what.encode() in (changes.content(path) or b"")]
    return ShimError(
        f"{said} all the same: another file is read after ours",
        subject=", ".join(named) or str(file.path),
        hint="take it out of there, or give that file a name that sorts before, and try again",
    )


def _without(file: ConfigFile, host: Host) -> tuple[bytes, Mapping[Path, bytes]]:
    """Return the main file and drop-ins without what is ours."""
    record = changes.recorded("containerd", host.state).files
    left = {}
    for path in [file.path, *config_file.drop_ins(file.path)]:
        now = file.text.encode() if path == file.path else changes.content(path)
        kept = record.get(str(path))
        if now is not None:
            left[path] = config_file.without(path, now, kept.original if kept else None)
    main = left.pop(file.path) or b""
    return main, {path: data for path, data in left.items() if data is not None}


def _dump(file: ConfigFile, text: bytes, ours: Mapping[Path, bytes], host: Host) -> Any:
    """Return the document, or why there is none; None: no containerd is here.

    The copy's directory is ours alone: a configuration may hold credentials.
    """
    with tempfile.TemporaryDirectory() as directory:
        main = Path(directory) / "config.toml"
        imported = []
        hidden = set(config_file.drop_ins(file.path)) - set(ours)
        for path in config_file.imports(file, list(ours)):
            if path in ours:
                (Path(directory) / path.name).write_bytes(ours[path])
                imported.append(str(Path(directory) / path.name))
            elif path not in hidden:
                imported.append(str(path))
        said = text.decode()
        if "imports" in file.document:
            said = toml.with_value(said, ("imports",), imported)
        main.write_text(said, encoding="utf-8")
        answer = _asked(host, "--config", str(main), "config", "dump", complain=True)
    if answer is None or answer.startswith("!"):
        return answer and answer[1:].replace(f"{directory}/config.toml", str(file.path))
    return toml.parse(answer.encode(), "containerd config dump")


def _asked(host: Host, *words: str, complain: bool = False) -> str | None:
    if host.program("containerd") is None:
        return None
    done = host.run("containerd", *words, environment={"PATH": os.environ.get("PATH", "")})
    if done.returncode:
        return f"!{' '.join(done.stderr.split())[-300:]}" if complain else None
    return done.stdout
