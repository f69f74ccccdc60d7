"""Whom a probe would meet: processes, those of a container, or all that map a file."""

import os
import signal
import stat
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from shim import abi
from shim.errors import ShimError
from shim.host import libc, processes
from shim.host.children import parts_of
from shim.risk.containers import is_in
from shim.risk.groups import Place

# A process that waits in the kernel, or a file system of a user's, may keep whoever asks.
_SECONDS_EACH = 5.0  # of a busy machine, too: one that keeps us is a risk all the same
_SECONDS = 30
_EDGE = 65536


class Targets:
    """Who is meant: ``pids`` and what they start, who is in ``where``, who maps ``binary``.

    ``silent`` are those of whom it could not be found out, each with when it started.
    """

    def __init__(self, pids: Collection[int], where: Place | None, binary: str) -> None:
        self.named = tuple(pids)
        self.family = set(pids)
        self.where = where
        self.binary = binary
        self.silent: dict[int, str] = {}
        self._file = _File.of(binary) if binary else None

    def among(self, pids: Iterable[int]) -> list[int]:
        """Return those of ``pids`` who are meant now. OSError: that cannot be found out."""
        wanted = list(pids)
        found = [pid for pid in wanted if self._is_meant(pid)]
        if self._file:
            self.silent = {
                pid: started for pid, started in self.silent.items() if started == _started(pid)
            }
            known = {*found, *self.silent}
            mapping, silent = _asked([pid for pid in wanted if pid not in known], self._file)
            found += mapping
            self.silent |= {pid: started for pid in silent if (started := _started(pid))}
        return found

    def _is_meant(self, pid: int) -> bool:
        try:
            if pid in self.family or processes.parent(pid) in self.family:
                self.family.add(pid)
                return True
            return self.where is not None and is_in(self.where, pid)
        except (OSError, LookupError):
            return False  # it has ended


def _started(pid: int) -> str:
    try:
        return processes.started(pid)
    except (OSError, LookupError):
        return ""


class _File(NamedTuple):
    """What tells a file: device and inode, size and time of its last change, begin and end.

    Containers of one image share its files by an overlay each, with a device and an inode each,
    and a probe meets them all (its key is the inode of the layer below, also where a container has
    changed the owner or the times: overlayfs' metacopy). What they have in common is seen by size
    and time, or by size and contents, of which the begin has an ELF file's build id. A copy is
    taken for the file: that errs on the safe side.
    """

    inode: tuple[int, int]
    size: int
    changed: int
    edges: tuple[bytes, bytes]

    @classmethod
    def of(cls, path: str) -> "_File":
        """Look at a file. ShimError: it cannot be looked at."""
        try:
            info = os.stat(path)
            edges = _edges(path, info)
        except OSError as error:
            raise ShimError(error.strerror or "cannot be looked at", subject=path) from None
        return cls((info.st_dev, info.st_ino), info.st_size, info.st_mtime_ns, edges)

    def is_in(self, path: str) -> bool:
        """Tell whether it is the file at ``path``, too."""
        try:
            info = os.stat(path)
            if (info.st_dev, info.st_ino) == self.inode:
                return True
            if info.st_size != self.size:
                return False
            return info.st_mtime_ns == self.changed or _edges(path, info) == self.edges
        except OSError:
            return False  # it is mapped no more


def _edges(path: str, info: os.stat_result) -> tuple[bytes, bytes]:
    """Return the begin and the end of a file. OSError."""
    if not stat.S_ISREG(info.st_mode):
        raise OSError("no regular file")
    with open(path, "rb") as file:
        begin = file.read(_EDGE)
        file.seek(max(0, info.st_size - _EDGE))
        return begin, file.read(_EDGE)


def _asked(pids: list[int], file: _File) -> tuple[list[int], list[int]]:
    """Return who of ``pids`` maps the file, and who did not let that be found out in time."""
    mapping, silent = [], []
    waiting, until = list(pids), time.monotonic() + _SECONDS
    while waiting and time.monotonic() < until:
        answers = b""
        with suppress(TimeoutError):
            for part in parts_of(partial(_tell, waiting, file), _SECONDS_EACH):
                answers += part
        mapping += [pid for pid, answer in zip(waiting, answers, strict=False) if answer]
        waiting = waiting[len(answers) :]
        silent += waiting[:1]  # who kept the child that asked
        waiting = waiting[1:]
    return mapping, silent + waiting


def _tell(pids: list[int], file: _File, writer: int) -> None:
    """Write a byte for each process: whether it maps the file."""
    libc.prctl(abi.PR_SET_PDEATHSIG, signal.SIGKILL)
    for pid in pids:
        os.write(writer, bytes([any(map(file.is_in, processes.code_mappings(pid)))]))
