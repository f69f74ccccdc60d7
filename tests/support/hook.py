"""The hook executable of this checkout, rendered as install.sh renders it."""

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def render(target: Path, package_dir: Path = CHECKOUT) -> Path:
    """Write the hook that imports from ``package_dir`` to ``target``, executable, and give it."""
    python = os.path.realpath(sys.executable)
    command = [str(CHECKOUT / "install.sh"), "--render-hook", python, str(package_dir)]
    target.write_bytes(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    target.chmod(0o755)
    return target
