"""Runtimes as far as they tell of themselves: which they are, and which libseccomp they have."""

import os
from pathlib import Path

from support.checkout import CHECKOUT

# A crun whose libseccomp knows every name, whatever this machine's is.
KNOWING = str(CHECKOUT / "tests/cli/crun-knowing")


def telling(folder: Path, **libseccomp: str) -> dict[str, str]:
    """Write runtimes by name; return the environment in which they are those of this host."""
    folder.mkdir(exist_ok=True)
    for name, version in libseccomp.items():
        program = folder / name
        said = f"{name} version 1.5.1\\nlibseccomp: {version}\\n" if version else ""
        program.write_text(f"#!/bin/sh\n[ \"$1\" != --version ] || printf '{said}'\n")
        program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
