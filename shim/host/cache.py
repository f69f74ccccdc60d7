"""What the probe found, kept for this boot in /run/seccomp-shim.

Only files that root owns and nobody else may write are believed; anything wrong with one means that
it is not there. A verdict of ``unknown`` is never kept.
"""

import os
import stat

from shim import catalog
from shim.startjson import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECTORY = "/run/seccomp-shim"
_NAME = "probe.json"


def facts(*, fresh: bool = False, directory: str = DIRECTORY) -> "dict[str, Any]":
    """Give what is known of this kernel: the probe's verdict, from the cache unless ``fresh``.

    ``{"kernel": {"release", "machine", "boot_id"}, "syscalls": {name: {"nr", "state", "reason"?}},
    "prober": {"filtered"}}``.
    """
    calls = {name: call.numbers["x86_64"] for name, call in catalog.kernel_injected().items()}
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        boot_id = file.read().strip()
    if not fresh:
        kept = read(_NAME, directory)
        if _is_of(kept, boot_id, calls):
            return dict(kept)
    from shim.host.probe import filtered_self, probe

    system = os.uname()
    states = probe(calls)
    found = {
        "kernel": {"release": system.release, "machine": system.machine, "boot_id": boot_id},
        "syscalls": states,
        "prober": {"filtered": filtered_self()},
    }
    if all(call["state"] != "unknown" for call in states.values()):
        write(_NAME, found, directory)
    return found


def read(name: str, directory: str = DIRECTORY) -> "Any":
    """Give the document kept as ``name``, or None where there is none to be believed."""
    path = f"{directory}/{name}"
    try:
        folder = os.stat(directory, follow_symlinks=False)
        if not stat.S_ISDIR(folder.st_mode) or not _only_root_writes(folder):
            return None
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or not _only_root_writes(info):
                return None
            return loads(os.read(fd, 1 << 20))
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return None


def write(name: str, document: object, directory: str = DIRECTORY) -> None:
    """Keep ``document`` as ``name``, whole or not at all; only root keeps anything."""
    if os.geteuid() != 0:
        return
    draft = f"{directory}/.{name}.{os.getpid()}"
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        try:
            os.fchmod(fd, 0o644)  # whatever the umask
            os.write(fd, dumps(document).encode())
        finally:
            os.close(fd)
        os.rename(draft, f"{directory}/{name}")
    except OSError:
        pass  # nothing is kept, and the next start asks the kernel again


def _only_root_writes(info: os.stat_result) -> bool:
    return info.st_uid == 0 and not info.st_mode & 0o022


def _is_of(kept: "Any", boot_id: str, calls: "dict[str, int]") -> bool:
    """Tell whether the document is a verdict of this boot on just these calls."""
    try:
        return bool(
            kept["kernel"]["boot_id"] == boot_id
            and {"release", "machine"} <= kept["kernel"].keys()
            and {name: call["nr"] for name, call in kept["syscalls"].items()} == calls
            and all(
                call["state"] in ("absent", "filtered", "exempt")
                for call in kept["syscalls"].values()
            )
        )
    except (TypeError, KeyError, AttributeError):
        return False
