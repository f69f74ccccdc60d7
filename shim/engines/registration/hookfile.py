"""Make the executables that engines call from their templates in hooks/."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import shim
from shim import atomic, data
from shim.errors import ShimError

# The real runtime that each link to the wrapper stands for.
LINKS = ("seccomp-shim-runc", "seccomp-shim-crun")


def render_all(directory: Path, python: str = "") -> Path:
    """Write every executable and link that engines call into ``directory``; give it back."""
    for template in sorted(data.directory("hooks").glob("seccomp-shim-*")):
        render(directory / template.name, python, template.name)
    for link in LINKS:
        draft = directory / f".{link}.new"
        draft.unlink(missing_ok=True)
        draft.symlink_to("seccomp-shim-runtime")
        draft.replace(directory / link)
    return directory


def render(target: Path, python: str = "", name: str = "seccomp-shim-hook") -> Path:
    """Write hook ``name`` as an executable to ``target``, in one step, and give ``target`` back.

    ``python`` is the interpreter to name in it; by default the real one that runs us, behind its
    virtual environment. ShimError if anybody but root could replace that.
    """
    interpreter = os.path.realpath(python or sys.executable)
    _owned_by_root(interpreter)
    templates = data.directory("hooks")
    text = (templates / name).read_text(encoding="utf-8")
    text = text.replace("@GUARD@\n", (templates / "guard").read_text(encoding="utf-8"))
    for place, value in {
        "@PYTHON@": interpreter,
        "@PACKAGE_DIR@": str(Path(shim.__file__).resolve().parent.parent),
        "@DEPENDENCIES@": _dependencies(),
        "@BIN@": str(target.resolve().parent),
    }.items():
        if not re.fullmatch(r"[\w./+-]*", value, re.ASCII):
            hint = "letters, digits and ._/+- only"
            raise ShimError("root's hook cannot name this path", subject=value, hint=hint)
        text = text.replace(place, value)
    atomic.write_atomic(str(target), text.encode(), 0o755)  # a container may be starting
    return target


def _dependencies() -> str:
    """Return the directory of the libraries that we need: ours too unless we run in place."""
    found = find_spec("pyseccomp")
    return str(Path(found.origin).parent) if found and found.origin else ""


def _owned_by_root(path: str) -> None:
    """Refuse an interpreter that another user may replace: the hook runs it as root."""
    for part in (Path(path), *Path(path).parents):
        info = part.stat()
        if info.st_uid != 0 or (info.st_mode & 0o022 and not info.st_mode & 0o1000):
            raise ShimError(
                "root's hook cannot name this interpreter: others may replace it",
                subject=str(part),
                hint="use the system's own, such as /usr/bin/python3",
            )
