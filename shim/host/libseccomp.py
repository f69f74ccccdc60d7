"""What the system's own libseccomp knows (the one that our bindings load)."""

import ctypes
from collections.abc import Iterable

from shim.catalog import known_names
from shim.errors import ShimError, printable

_SHOWN, _LENGTH = 5, 60


class _Version(ctypes.Structure):
    """``struct scmp_version`` of seccomp.h."""

    _fields_ = (
        ("major", ctypes.c_uint),
        ("minor", ctypes.c_uint),
        ("micro", ctypes.c_uint),
    )


def system_libseccomp(names: list[str]) -> tuple[str, dict[str, bool]]:
    """Return the library's version and, for each of ``names``, whether it resolves it.

    ShimError: there is no libseccomp.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise ShimError(
            f"cannot load libseccomp: {error}", hint="install the package libseccomp2 (libseccomp)"
        ) from None
    library.seccomp_version.restype = ctypes.POINTER(_Version)
    version = library.seccomp_version().contents
    resolve = library.seccomp_syscall_resolve_name
    resolve.argtypes = [ctypes.c_char_p]
    # __NR_SCMP_ERROR is -1; other negative numbers stand for calls of other architectures
    known = {name: resolve(name.encode()) != -1 for name in names}
    return f"{version.major}.{version.minor}.{version.micro}", known


def unknown(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``names`` that are no call of any kernel, and that libseccomp drops.

    What the library here has learnt since our tables were made is known.
    """
    left = [name for name in dict.fromkeys(names) if name not in known_names()]
    if not left:
        return ()
    try:
        # It reads a name up to its first zero byte.
        learnt = system_libseccomp([name for name in left if "\0" not in name])[1]
    except (ShimError, UnicodeEncodeError):
        learnt = {}
    return tuple(name for name in left if not learnt.get(name))


def about_unknown(names: Iterable[str]) -> str:
    """Say in one line what ``unknown`` has found; empty: nothing."""
    quoted = [f"'{printable(name[:_LENGTH])}'" for name in names]
    if not quoted:
        return ""
    more = f" and {len(quoted) - _SHOWN} more" if len(quoted) > _SHOWN else ""
    what, them = ("no system calls", "them") if len(quoted) > 1 else ("no system call", "it")
    listed = ", ".join(quoted[:_SHOWN])
    return f"{listed}{more}: {what} of any kernel that we know; libseccomp drops {them}"
