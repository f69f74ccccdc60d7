"""What the system's own libseccomp knows (the one that our bindings load)."""

import ctypes

from shim.errors import ShimError


class _Version(ctypes.Structure):
    """``struct scmp_version`` of seccomp.h."""

    _fields_ = (
        ("major", ctypes.c_uint),
        ("minor", ctypes.c_uint),
        ("micro", ctypes.c_uint),
    )


def system_libseccomp(names: list[str]) -> tuple[str, dict[str, bool]]:
    """Give the library's version and, for each of ``names``, whether it resolves it.

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
