"""Entries of hooks.d directories, as Podman and CRI-O read them (oci-hooks(5), version 1.0.0)."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from shim.engines.registration import Host, dropin
from shim.engines.registration.changes import Edit, content, edit
from shim.engines.registration.status import StatusEntry
from shim.start.hook_entry import hook, program

STAGES = {
    "seccomp-shim-hook": "createRuntime",
    "seccomp-shim-verify": "poststart",
    "seccomp-shim-precreate": "precreate",
}


def edits(directory: Path, host: Host, wanted: Mapping[str, Sequence[str]]) -> list[Edit]:
    """Plan a file for each of our executables ``wanted``, with these arguments, and no others."""
    return [
        edit(path, entry(host, path.stem, wanted[path.stem]) if path.stem in wanted else None)
        for path in places(directory)
    ]


def places(directory: Path) -> list[Path]:
    """Return the files that may be ours."""
    return [directory / f"{name}.json" for name in STAGES]


def entry(host: Host, name: str, args: Sequence[str]) -> bytes:
    """Return the entry that calls our executable ``name`` for every container."""
    document = {
        "version": "1.0.0",
        "hook": hook(dropin.program(host, name), list(args)),
        "when": {"always": True},
        "stages": [STAGES[name]],
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def entries(directory: Path, host: Host) -> list[StatusEntry]:
    """Return the entries that are there, for ``status``."""
    found = []
    for path in places(directory):
        data = content(path)
        if data is not None:
            program = _program(data)
            there = os.access(host.path(program), os.X_OK)
            found.append(StatusEntry(file=str(path), name=path.stem, path=program, exists=there))
    return found


def _program(data: bytes) -> str:
    try:
        return str(program(json.loads(data)["hook"])[0])
    except (ValueError, KeyError, TypeError, IndexError):
        return ""
