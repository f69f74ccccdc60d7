"""A runtime that keeps every config.json that an engine hands it, and then is runc."""

import json
from pathlib import Path
from typing import Any

# The bundle is in the command line of create; runc gets it unchanged.
_SCRIPT = """#!/bin/sh
for word; do
    [ "$previous" = --bundle ] && cp "$word/config.json" "$(mktemp {folder}/XXXXXXXX.json)"
    previous=$word
done
{answers}
exec runc "$@"
"""
_FEATURES = """[ "$1" = features ] && exec echo '{"annotations": {"io.github.seccomp.libseccomp.\
version": "VERSION"}}'"""


class Capture:
    """The runtime (``program``), and what it was handed since the last ``taken``."""

    def __init__(self, folder: Path, libseccomp: str = "") -> None:
        """Write the program into ``directory``; it claims to have ``libseccomp``, or runc's own.

        What it says is all that changes: names that runc's library lacks it drops, as ever.
        """
        self.folder = folder / "captured"
        self.folder.mkdir()
        self.program = folder / "capture"
        answers = _FEATURES.replace("VERSION", libseccomp) if libseccomp else ""
        self.program.write_text(_SCRIPT.format(folder=self.folder, answers=answers))
        self.program.chmod(0o755)

    def taken(self) -> list[dict[str, Any]]:
        """Return the documents, oldest first, and forget them."""
        files = sorted(self.folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        documents = [json.loads(file.read_bytes()) for file in files]
        for file in files:
            file.unlink()
        return documents
