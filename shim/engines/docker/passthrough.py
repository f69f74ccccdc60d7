"""Find the real docker. Every ``docker ps`` passes through here: it imports next to nothing."""

import os
import sys

from shim.errors import ShimError

_SCRIPT = 1 << 16


class NoDockerError(ShimError):
    """There is no docker on PATH but us."""


class SpentError(ShimError):
    """What docker was to read is gone: it cannot be run as it was asked for any more."""


def real_docker() -> str:
    """Return the first docker on PATH that is not us."""
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory, "docker")
        if os.path.isfile(path) and os.access(path, os.X_OK) and not _is_us(path):
            return path
    raise NoDockerError("there is no docker on PATH", hint="this only stands in front of one")


def _is_us(path: str) -> bool:
    """Tell whether ``path`` leads back here: a link to us, or a script that calls us."""
    if os.path.realpath(path) == os.path.realpath(sys.argv[0]):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!" and b"seccomp-shim" in file.read(_SCRIPT)
    except OSError:
        return False
