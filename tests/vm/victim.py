"""The probed program, compiled once."""

import subprocess
from pathlib import Path

from vm import cache
from vm.errors import LabError

SOURCE = Path(__file__).parent / "victim.c"


def ready() -> Path:
    """Return the static program made of victim.c."""

    def build(work: Path) -> None:
        command = ["gcc", "-static", "-no-pie", "-O2", "-o", f"{work}/victim", str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"cannot compile {SOURCE}: {done.stderr.strip()[-400:]}")

    return cache.built("victim", cache.key(SOURCE.read_bytes()), build) / "victim"
