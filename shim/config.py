"""The admin's settings: /etc/seccomp-shim/config.yaml, and its compiled twin for the start path.

YAML is too slow to read for every container, so the settings are kept again as JSON beside the
YAML file, with the size, times, inode and device of the file they came from. The first container
after an edit compiles them anew, also where the file's old modification time was put back: nobody
sets the time of the last change (ctime). A file that anybody but its owner may write, or that
neither root nor this user owns, is not believed. Rootless containers have root's settings, but a
log of their user's own. ``shim.configfile`` reads and compiles the YAML file.
"""

from shim import files
from shim import lightos as os
from shim.errors import ShimError
from shim.startjson import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATH = "/etc/seccomp-shim/config.yaml"
DEFAULTS: "dict[str, Any]" = {
    # What to do when an adjustment was called for and could not be made, or not be logged:
    # "allow" starts the container as it would have started without us, "deny" refuses to.
    "on_error": "allow",
    # Where every adjustment is logged.
    "log": "/var/log/seccomp-shim/audit.jsonl",
    # From how many bytes on the writer rotates it, and how many rotated ones stay, compressed.
    # None: it is never rotated by us.
    "log_max": [64 << 20, 4],
    # "brief" writes one line of a start that goes well, "full" one before the change, one after it,
    # and one of the look at the running container.
    "log_detail": "brief",
    # An exec that is adjusted like the one before it in the same container is written ("write"), or
    # counted and told once in an hour or in a thousand ("count").
    "log_repeats": "write",
    # The runtime wrapper's real runtimes by name, where PATH is not to decide: the first is used
    # where no name is asked for.
    "runtimes": {},
    # A call number that no kernel has, to be let through as well as the real calls: shows on any
    # kernel whether containers are adjusted. 0 is none.
    "test_syscall": 0,
    # What calls get that no rule of a profile names and that its default refuses by EPERM: that
    # ("default"), or ENOSYS ("enosys"), so that programs fall back as on an older kernel.
    "unknown_calls": "default",
}
LIMIT = 1 << 20


def load(path: str = PATH) -> "tuple[dict[str, Any], str]":
    """Return the settings and, where they could not all be believed, one line that says why.

    With a broken YAML file the last good settings stay in force: an admin who asked for
    ``on_error: deny`` keeps it through a typing error.
    """
    settings, doubt = _load(path)
    if os.geteuid() == 0 == os.stat("/etc").st_uid:
        return settings, doubt  # this is root, and not one of a user namespace
    from shim.rootless import log, rootless

    if rootless() and not _own(path, settings):
        try:
            settings["log"] = log()
        except OSError as error:
            doubt = doubt or f"no log of the user's own: {error.strerror or error}"
    return settings, doubt


def _load(path: str) -> "tuple[dict[str, Any], str]":
    compiled = _read_compiled(compiled_path(path))
    try:
        if compiled.get("source") == _identity(path, os.stat(path)):
            return {**DEFAULTS, **compiled["settings"]}, ""
        from shim.configfile import compile_file

        return compile_file(path), ""
    except FileNotFoundError:
        return dict(DEFAULTS), ""
    except (OSError, ShimError, ImportError, RecursionError) as error:
        used = "last good settings" if compiled else "defaults"
        return {**DEFAULTS, **compiled.get("settings", {})}, f"{error}; the {used} are used"


def compiled_path(path: str) -> str:
    """Return where the settings of ``path`` are kept as JSON."""
    return path.removesuffix(".yaml") + ".json"


def read(path: str) -> "tuple[list[int], bytes]":
    """Read a file of ours and tell which it is; ShimError, OSError: it is not to be believed."""
    fd = files.open_regular(path)
    try:
        identity = _identity(path, os.fstat(fd))
        text = files.read_up_to(fd, LIMIT + 1)
    finally:
        os.close(fd)
    if len(text) > LIMIT:
        raise ShimError(f"has more than {LIMIT >> 10} KiB", subject=path)
    return identity, text


def _identity(path: str, info: os.stat_result) -> list[int]:
    """Tell this content of the file from any other; ShimError if others could have written it."""
    owners = {0, os.geteuid()}
    if path.startswith("/etc/"):  # rootless engines see root's files as nobody's
        owners.add(os.stat("/etc").st_uid)
    if info.st_uid not in owners or info.st_mode & 0o022:
        raise ShimError("may be written by others than its owner root", subject=path)
    return [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_dev]


def _own(path: str, settings: "dict[str, Any]") -> bool:
    """Tell whether these settings are the user's own and name a log."""
    if settings["log"] == DEFAULTS["log"]:
        return False
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False


def _read_compiled(path: str) -> "dict[str, Any]":
    try:
        document = loads(read(path)[1])
        if (
            isinstance(document["settings"], dict)
            and document["settings"].keys() <= DEFAULTS.keys()
        ):
            return document  # type: ignore[no-any-return]  # shape just checked
    except (OSError, ShimError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}
