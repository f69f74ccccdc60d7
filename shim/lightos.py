"""What the start path uses of ``os``, from where ``os`` has it itself.

To import ``os`` costs two milliseconds of processor time where no ``site`` has done so (``-I -S``),
a fifth of what the interpreter takes to start: it brings all abstract base classes along. The calls
are those of the built-in module ``posix``. What is not here is taken from ``os``, which is then
imported.
"""

import _stat
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import *  # noqa: F403
    from os import (
        _exit,  # noqa: F401
        path,
    )
    from typing import Any
else:
    from posix import *  # noqa: F403 - the calls, as os itself has them

    del environ  # noqa: F821 - posix has it in bytes


def __getattr__(name: str) -> "Any":
    import os

    return getattr(os, name)


class _Path:
    """The functions of ``os.path`` for strings, as ``posixpath`` defines them."""

    def __getattr__(self, name: str) -> "Any":
        import os

        return getattr(os.path, name)

    @staticmethod
    def isabs(path: str) -> bool:
        return path.startswith("/")

    @staticmethod
    def join(directory: str, name: str) -> str:
        if name.startswith("/"):
            return name
        return (
            f"{directory}{name}" if not directory or directory[-1] == "/" else f"{directory}/{name}"
        )

    @staticmethod
    def split(path: str) -> "tuple[str, str]":
        head, slash, tail = path.rpartition("/")
        head += slash
        return head.rstrip("/") or head, tail

    @classmethod
    def dirname(cls, path: str) -> str:
        return cls.split(path)[0]

    @staticmethod
    def basename(path: str) -> str:
        return path.rpartition("/")[2]

    def abspath(self, path: str) -> str:
        if path[:1] == "/" and not {"", ".", ".."}.intersection(path[1:].split("/")):
            return path
        found: str = self.__getattr__("abspath")(path)
        return found

    @staticmethod
    def exists(path: str) -> bool:
        try:
            posix.stat(path)
        except (OSError, ValueError):
            return False
        return True

    @staticmethod
    def isfile(path: str) -> bool:
        try:
            return _stat.S_ISREG(posix.stat(path).st_mode)
        except (OSError, ValueError):
            return False

    @staticmethod
    def islink(path: str) -> bool:
        try:
            return _stat.S_ISLNK(posix.lstat(path).st_mode)
        except (OSError, ValueError):
            return False


if not TYPE_CHECKING:
    path = _Path()
