"""The admin's settings: /etc/seccomp-shim/config.yaml, and its compiled twin for the start path.

YAML is too slow to read for every container, so the settings are kept again as JSON beside the
YAML file, with the size, time and inode of the file they came from. The first container after an
edit compiles them anew. A file that anybody but its owner may write, or that neither root nor this
user owns, is not believed.
"""

import os
import stat

from shim.errors import ShimError
from shim.startjson import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATH = "/etc/seccomp-shim/config.yaml"
DEFAULTS: dict[str, str] = {
    # What to do when an adjustment was called for and could not be made, or not be logged:
    # "allow" starts the container as it would have started without us, "deny" refuses to.
    "on_error": "allow",
    # Where every adjustment is logged.
    "log": "/var/log/seccomp-shim/audit.jsonl",
}


def load(path: str = PATH) -> tuple[dict[str, str], str]:
    """Give the settings and, where they could not all be believed, one line that says why.

    With a broken YAML file the last good settings stay in force: an admin who asked for
    ``on_error: deny`` keeps it through a typing error.
    """
    compiled = _read_compiled(_compiled_path(path))
    try:
        if compiled.get("source") == _identity(path):
            return {**DEFAULTS, **compiled["settings"]}, ""
        return compile_file(path), ""
    except FileNotFoundError:
        return dict(DEFAULTS), ""
    except (OSError, ShimError, ImportError, RecursionError) as error:
        used = "last good settings" if compiled else "defaults"
        return {**DEFAULTS, **compiled.get("settings", {})}, f"{error}; the {used} are used"


def compile_file(path: str = PATH) -> dict[str, str]:
    """Read and check the YAML file and keep it compiled beside itself; ShimError: what is wrong.

    Where the compiled file cannot be written the settings hold all the same.
    """
    source = _identity(path)
    with open(path, "rb") as file:
        settings = parse(file.read(), path)
    target = _compiled_path(path)
    draft = f"{target}.{os.getpid()}"
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, dumps({"source": source, "settings": settings}).encode())
        finally:
            os.close(fd)
        os.rename(draft, target)
    except OSError:
        pass  # a read-only /etc: every start then compiles for itself, slower but right
    return {**DEFAULTS, **settings}


def parse(text: bytes, path: str) -> dict[str, str]:
    """Check the YAML ``text``; ShimError names the first thing wrong in it."""
    import yaml

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        first = " ".join(str(error).split())
        raise ShimError(f"is not YAML: {first}", subject=path) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ShimError("must be a mapping of settings", subject=path)
    for key, value in document.items():
        if key not in DEFAULTS:
            known = ", ".join(DEFAULTS)
            raise ShimError(f"unknown setting {key!r}", subject=path, hint=f"there are: {known}")
        if key == "on_error" and value not in {"allow", "deny"}:
            raise ShimError(f"on_error: {value!r}", subject=path, hint="allow or deny")
        if key == "log" and not (isinstance(value, str) and value.startswith("/")):
            raise ShimError(f"log: {value!r}", subject=path, hint="an absolute path")
    return document


def _compiled_path(path: str) -> str:
    return path.removesuffix(".yaml") + ".json"


def _identity(path: str) -> list[int]:
    """Tell this content of the file from any other; ShimError if others could have written it."""
    info = os.stat(path)
    if not stat.S_ISREG(info.st_mode):
        raise ShimError("is not a regular file", subject=path)
    if info.st_uid not in {0, os.geteuid()} or info.st_mode & 0o022:
        raise ShimError("may be written by others than its owner root", subject=path)
    return [info.st_size, info.st_mtime_ns, info.st_ino]


def _read_compiled(path: str) -> "dict[str, Any]":
    try:
        _identity(path)
        with open(path, "rb") as file:
            document = loads(file.read())
        if (
            isinstance(document["settings"], dict)
            and document["settings"].keys() <= DEFAULTS.keys()
        ):
            return document  # type: ignore[no-any-return]  # shape just checked
    except (OSError, ShimError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}
