"""Facts about this machine that hold until the next boot, kept in /run/seccomp-shim.

Root writes there, everybody may read. Nothing is believed that anybody but root could have
written, and a directory that cannot be used costs time, never an error.
"""

from shim import files, injected
from shim import lightos as os
from shim.startjson import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECTORY = "/run/seccomp-shim"
_PROBE = "probe.json"
_IDLE = "idle"
_STATES = ("absent", "filtered", "exempt")  # unknown is not kept: the next one may find out
_LIMIT = 1 << 16


def facts(*, fresh: bool = False, directory: str = DIRECTORY) -> "dict[str, Any]":
    """Return what this kernel does with every kernel-injected call of the catalogue.

    ``{"kernel": {"release", "machine", "boot_id"}, "syscalls": {name: {"nr", "state", "reason"?}},
    "prober": {"filtered"}}``. Remembered from this boot's first look, ``fresh`` looks again.
    """
    boot = _boot_id()
    calls = injected.X86_64
    if not fresh:
        known = read(_PROBE, directory)
        if _usable(known, boot, calls):
            return known  # type: ignore[no-any-return]  # shape just checked
    from shim.host.probe import filtered_self, probe

    uname = os.uname()
    found: dict[str, Any] = {
        "kernel": {"release": uname.release, "machine": uname.machine, "boot_id": boot},
        "syscalls": probe(calls),
        "prober": {"filtered": filtered_self()},
    }
    if _usable(found, boot, calls):
        write(_PROBE, found, directory)
        note_idle(found, directory)
    return found


def states() -> "dict[str, str]":
    """Return the states of the kernel-injected calls on the kernel here."""
    return {name: call["state"] for name, call in facts()["syscalls"].items()}


def note_idle(found: "dict[str, Any]", directory: str = DIRECTORY) -> None:
    """Leave word for the runtime wrapper's shell part whether this kernel needs nothing of us.

    The line names the boot and the directory of the code that says so: a new version decides anew.
    """
    packages = os.path.realpath(__file__).rpartition("/shim/host/")[0]
    idle = all(call["state"] in ("absent", "exempt") for call in found["syscalls"].values())
    word = f"{found['kernel']['boot_id']} {packages}\n" if idle else ""
    try:
        known = files.read_regular(f"{directory}/{_IDLE}", 4096).decode()
    except (OSError, ValueError):
        known = ""
    if known != word:
        _put(_IDLE, word.encode(), directory)


def read(name: str, directory: str = DIRECTORY) -> "Any":
    """Return the document kept as ``name``; None if there is none to be believed."""
    try:
        dir_fd = _open_directory(directory)
        try:
            fd = files.open_regular(name, os.O_NOFOLLOW, dir_fd=dir_fd)
        finally:
            os.close(dir_fd)
        try:
            info = os.fstat(fd)
            if not _roots_own(info) or info.st_size > _LIMIT:
                return None
            return loads(os.read(fd, _LIMIT))
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return None


def write(name: str, document: object, directory: str = DIRECTORY) -> None:
    """Keep ``document`` as ``name`` if we are root; where that is not possible nothing is kept."""
    _put(name, dumps(document).encode(), directory)


def _put(name: str, text: bytes, directory: str) -> None:
    if os.geteuid() != 0:
        return
    try:
        dir_fd = _make_directory(directory)
    except OSError:
        return
    try:
        from shim import atomic

        atomic.write_atomic(name, text, 0o644, dir_fd=dir_fd)
    except OSError:
        pass
    finally:
        os.close(dir_fd)


def _usable(known: "Any", boot: str, calls: "dict[str, int]") -> bool:
    """Tell whether ``known`` is a document of this boot that decides on exactly ``calls``."""
    try:
        kernel, found = known["kernel"], known["syscalls"]
        return (
            boot != ""
            and kernel["boot_id"] == boot
            and type(kernel["release"]) is type(kernel["machine"]) is str
            and type(known["prober"]["filtered"]) is bool
            and {name: call["nr"] for name, call in found.items()} == calls
            and all(call["state"] in _STATES for call in found.values())
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _boot_id() -> str:
    """Return the id of this boot, empty where there is no /proc."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read().decode().strip()
    except OSError:
        return ""


def _open_directory(directory: str) -> int:
    """Open ``directory``; OSError if it is none that only root may write to."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    dir_fd = os.open(directory, flags)
    if _roots_own(os.fstat(dir_fd)):
        return dir_fd
    os.close(dir_fd)
    raise PermissionError


def _make_directory(directory: str) -> int:
    try:
        os.mkdir(directory, 0o700)
        os.chmod(directory, 0o755)
    except FileExistsError:
        pass
    return _open_directory(directory)


def _roots_own(info: os.stat_result) -> bool:
    """Tell whether root alone may write there; rootless engines see root's files as nobody's.

    Whoever owns /run could put anything into our directory in it.
    """
    return info.st_uid in {0, os.stat("/run").st_uid} and not info.st_mode & 0o022
