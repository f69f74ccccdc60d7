"""What one checkout puts in front of a start; compare.py runs this file in each of the two.

Only what every checkout has is used, old ones too, and the options of each are its own.
"""

import json
import sys
from pathlib import Path

from support.wrapped import WrappedLab

try:
    from shim.start.hook_entry import hook
except ImportError:  # an older checkout enters its executable as it is

    def hook(path: str, options: list[str]) -> dict[str, object]:
        """Return the entry of a config.json."""
        return {"path": path, "args": [path, *options]}


def describe(folder: Path, real: str) -> dict[str, object]:
    """Make the executables in ``folder`` and tell how they are called, doing nothing and at work.

    A lab calls its hook and its wrapper with a test system call unless told otherwise.
    """
    lab = WrappedLab(folder, real)
    _, *words = lab.hooks()["prestart"][0]["args"]
    path = str(lab.bin / "seccomp-shim-hook")
    wrapper = [Path(lab.runtime).read_text().split()[2:-1]]
    lab.use(0)
    wrapper.insert(0, Path(lab.runtime).read_text().split()[2:-1])
    return {
        "hooks": [hook(path, words[:-2]), hook(path, words)],
        "wrappers": wrapper,
        "log": str(lab.log_path),
    }


print(json.dumps(describe(Path(sys.argv[1]), sys.argv[2])))
