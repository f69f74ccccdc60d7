"""Private directories of ours: root's in /run, a user's in XDG_RUNTIME_DIR."""

from shim import lightos as os

ROOTS = "/run/seccomp-shim"


def directory(name: str) -> "tuple[int, str]":
    """Open directory ``name``, made if need be: a descriptor (-1: none is safe) and the path."""
    base = ROOTS if os.geteuid() == 0 and _is_roots(ROOTS) else ""
    if not base and (own := os.environ.get("XDG_RUNTIME_DIR", "")).startswith("/"):
        base = f"{own}/seccomp-shim"
    if not base:
        return -1, ""
    path = f"{base}/{name}"
    try:
        for each in (base, path):
            try:
                os.mkdir(each, 0o700)
                if each == ROOTS:
                    os.chmod(each, 0o755)
            except FileExistsError:
                pass
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return -1, ""
    info = os.fstat(fd)
    if info.st_uid == os.geteuid() and not info.st_mode & 0o077:
        return fd, path
    os.close(fd)
    return -1, ""


def _is_roots(path: str) -> bool:
    """Tell whether we may use root's directory: another user namespace's root does not own it."""
    try:
        return os.stat(path).st_uid == 0
    except FileNotFoundError:
        return os.access(os.path.dirname(path), os.W_OK)
    except OSError:
        return False
