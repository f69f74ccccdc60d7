"""Which files a runtime opens: what it really made of its command line."""

import ctypes
import os
import struct
from pathlib import Path

IN_OPEN = 0x20  # linux/inotify.h
IN_NONBLOCK = os.O_NONBLOCK
_EVENT = struct.Struct("iIII")
_LIBC = ctypes.CDLL(None, use_errno=True)


class Opened:
    """An inotify instance that watches files being opened."""

    def __init__(self) -> None:
        """Watch nothing yet; OSError if there can be none."""
        self.fd = _LIBC.inotify_init1(IN_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self.paths: dict[int, Path] = {}

    def watch(self, path: Path) -> None:
        """Watch one file."""
        watch = _LIBC.inotify_add_watch(self.fd, os.fsencode(path), IN_OPEN)
        if watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(path))
        self.paths[watch] = path

    def taken(self) -> set[Path]:
        """Return what has been opened since the last call."""
        found: set[Path] = set()
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return found
        while data:
            watch, _, _, size = _EVENT.unpack_from(data)
            found.add(self.paths[watch])
            data = data[_EVENT.size + size :]
        return found

    def close(self) -> None:
        """End it."""
        os.close(self.fd)
