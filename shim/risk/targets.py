"""Whom a probe would meet: processes, those of a container, or all that map a file."""

import json
import os
from collections.abc import Collection, Iterable, Iterator

from shim.errors import ShimError
from shim.host import processes
from shim.host.children import answer_of
from shim.risk.containers import place_of
from shim.risk.groups import Place

_SECONDS = 30
_ANSWER = 8 << 20


class Targets:
    """Who is meant: ``pids`` and what they start, who is in ``where``, who maps ``binary``."""

    def __init__(self, pids: Collection[int], where: Place | None, binary: str) -> None:
        self.family = set(pids)
        self.where = where
        self.binary = binary
        self._file = _identity(binary) if binary else ()

    def among(self, pids: Iterable[int]) -> list[int]:
        """Return those of ``pids`` who are meant now. ShimError: that cannot be found out."""
        wanted = list(pids)
        found = [pid for pid in wanted if self._is_meant(pid)]
        if self._file:
            rest = [pid for pid in wanted if pid not in set(found)]
            found += _asked(rest, self._file)
        return found

    def _is_meant(self, pid: int) -> bool:
        try:
            if pid in self.family or processes.parent(pid) in self.family:
                self.family.add(pid)
                return True
            if self.where is None:
                return False
            return self.where.holds(place_of(pid))
        except (OSError, LookupError):
            return False  # it has ended


def _identity(path: str) -> tuple[int, ...]:
    """Return what tells a file: device and inode, size and time of its last change.

    Containers of one image share its files by an overlay each, with a device and an inode each,
    and a probe meets them all (its key is the inode of the layer below). What they have in common
    is seen by size and time. A copy with both is taken for the file: that errs on the safe side.
    """
    try:
        info = os.stat(path)
    except OSError as error:
        raise ShimError(error.strerror or "cannot be looked at", subject=path) from None
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _asked(pids: list[int], file: tuple[int, ...]) -> list[int]:
    """Ask in a child with a limit: a process that waits in the kernel may hold its own map."""

    def work(writer: int) -> None:
        found = [pid for pid in pids if any(_same(each, file) for each in _mapped(pid))]
        text = memoryview(json.dumps(found).encode())
        while text:
            text = text[os.write(writer, text) :]

    try:
        return [int(pid) for pid in json.loads(answer_of(work, _SECONDS, _ANSWER))]
    except (OSError, ValueError):
        raise ShimError("who maps it cannot be found out in time") from None


def _mapped(pid: int) -> Iterator[os.stat_result]:
    """Yield each file whose code process ``pid`` maps."""
    for mapping in processes.code_mappings(pid):
        try:
            yield os.stat(mapping)
        except OSError:
            continue


def _same(info: os.stat_result, file: tuple[int, ...]) -> bool:
    return file[:2] == (info.st_dev, info.st_ino) or file[2:] == (info.st_size, info.st_mtime_ns)
