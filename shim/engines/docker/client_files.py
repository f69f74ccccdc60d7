"""Files that the docker client reads for itself, after we have become it: nobody is left to delete.

So they are named by their content and stay: the same command finds the same file again. Root's are
in /run/seccomp-shim until the next boot, a user's in the cache of that user.
"""

import hashlib
import os
import stat

from shim import atomic
from shim.errors import ShimError


def directory() -> str:
    """Return the directory for them; nothing is made yet."""
    if os.geteuid() == 0:
        return "/run/seccomp-shim/docker"
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not cache.startswith("/"):  # the XDG Base Directory Specification: to be ignored
        cache = os.path.expanduser("~/.cache")
    return os.path.join(cache, "seccomp-shim", "docker")


def name(text: str, kind: str) -> str:
    """Return the path that ``text`` will be kept under; ``kind`` tells people what is in it."""
    return os.path.join(
        directory(), f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    )


def keep(path: str, text: str) -> None:
    """Write ``text`` to ``path``, which ``name`` gave. ShimError, OSError: it cannot be kept."""
    place = os.path.dirname(path)
    ours = os.path.dirname(place)
    os.makedirs(os.path.dirname(ours), exist_ok=True)
    for each, mode in ((ours, 0o755), (place, 0o700)):
        try:
            os.mkdir(each, 0o700)
            os.chmod(each, mode)  # whatever the umask
        except FileExistsError:
            pass
        info = os.lstat(each)
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022:
            raise ShimError("is not ours alone to write to", subject=each)
    atomic.write_atomic(path, text.encode(), 0o600)
