"""A file system seen from a directory, as chroot would show it: links and ``..`` do not lead out.

What it has read of each other user is counted: nobody makes root read without an end.
"""

import os
import stat
from collections.abc import Iterator
from itertools import islice

from shim.errors import ShimError
from shim.host.credentials import user
from shim.host.untrusted_files import Control, PathWalk, Reached, directory, named
from shim.profile.document import MAX_BYTES

MAX_DEPTH = 12
# How many entries of a directory tree are looked at; nobody keeps this many profiles in one.
MAX_ENTRIES = 200_000
# Of what belongs to another user, or to several: entries looked at and bytes read, in all.
OTHERS_ENTRIES = 20_000
OTHERS_BYTES = 16 << 20
_PATH_MAX = 4096  # as the kernel (include/uapi/linux/limits.h)


class Root:
    """The directory ``path`` as the root of all paths."""

    def __init__(self, path: str = "/") -> None:
        self.top = os.path.realpath(path)
        self._way = PathWalk(self.top)
        self._entries: dict[int | None, int] = {}
        self._bytes: dict[int | None, int] = {}

    def reach(self, path: str) -> Reached:
        """Go along a path; see ``shim.host.untrusted_files``. OSError, ShimError.

        What a user's file names may be no path at all.
        """
        try:
            if len(os.fsencode(path)) < _PATH_MAX and "\0" not in path:
                return self._way.reach(path)
        except UnicodeEncodeError:
            pass
        raise ShimError("is no path", subject=path[:_PATH_MAX])

    def real(self, path: str) -> str:
        """Return the true path of ``path``, all links followed inside of the root.

        ShimError: a loop of links, or one that others can change.
        """
        try:
            with self.reach(path) as place:
                return place.path
        except OSError:
            folder, name = os.path.split(os.path.normpath(path))
            return os.path.join(self.real(folder) if name else self.top, name)

    def shown(self, real: str) -> str:
        """Return a true path as it looks from inside."""
        if self.top == "/" or not f"{real}/".startswith(f"{self.top}/"):
            return real
        return real[len(self.top) :] or "/"

    def read(self, path: str) -> bytes:
        """Read a regular file, up to one byte more than a profile may have. OSError, ShimError."""
        return self.look_at(path)[0]

    def look_at(self, path: str) -> tuple[bytes, Control]:
        """Read a regular file as ``read`` does, and tell who else can change it."""
        with self.reach(path) as place:
            return self._read(place), place.control

    def word(self, path: str) -> tuple[bytes, Control]:
        """Read a regular file as ``read`` does, and tell whose word besides root's it may be."""
        with self.reach(path) as place:
            return self._read(place), place.author

    def control(self, path: str) -> Control:
        """Tell who else can change a file. OSError, ShimError."""
        with self.reach(path) as place:
            return place.control

    def entries(self, folder: str) -> list[tuple[str, int]]:
        """Return names and types (``stat.S_IFDIR``, ...) of what is in a directory, by name.

        OSError: it is none, or cannot be read; ShimError: too much of it is others'.
        """
        with directory(folder, self.top) as found, found.rights():
            with named(folder):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                fd = os.open(".", flags, dir_fd=found.directory)
            try:
                most = MAX_ENTRIES if found.control.trusted else OTHERS_ENTRIES
                with os.scandir(fd) as entries:
                    listed = sorted((each.name, _type(each)) for each in islice(entries, most + 1))
            finally:
                os.close(fd)
            what = "entries were looked at"
            self._count(self._entries, found.control, len(listed), OTHERS_ENTRIES, what)
            return listed

    def is_directory(self, path: str) -> bool:
        """Tell whether this is a directory, or a link to one that may be followed."""
        try:
            directory(path, self.top).close()
        except (OSError, ShimError):
            return False
        return True

    def files(
        self, folder: str, depth: int = MAX_DEPTH, without: frozenset[str] = frozenset()
    ) -> Iterator[str | OSError]:
        """Yield the paths of all files under ``directory``, and the errors met; OSError of a limit.

        Links to files are given, links to directories followed, once each. A ``depth`` of less than
        MAX_DEPTH is a choice: what lies deeper, and in hidden directories, is left out in silence,
        as are the directories ``without``.
        """
        todo = [(folder, 0)]
        seen: set[str] = set()
        count = 0
        while todo:
            here, level = todo.pop()
            try:
                real = self.real(here)
                if real in seen or self.shown(real) in without:
                    continue
                seen.add(real)
                entries = self.entries(here)
            except FileNotFoundError:
                continue
            except ShimError as error:
                yield OSError(0, error.message, here)
                continue
            except OSError as error:
                yield OSError(error.errno, error.strerror, here)
                continue
            below = []
            for name, kind in entries:
                count += 1
                if count > MAX_ENTRIES:
                    yield OSError(
                        0, f"has more than {MAX_ENTRIES} entries: not all were seen", folder
                    )
                    return
                path = os.path.join(here, name)
                if not (self.is_directory(path) if kind == stat.S_IFLNK else kind == stat.S_IFDIR):
                    yield path
                elif depth < MAX_DEPTH and (level == depth or name.startswith(".")):
                    continue
                elif level == depth:
                    yield OSError(
                        0, f"lies more than {depth} directories deep: not looked into", path
                    )
                else:
                    below.append((path, level + 1))
            todo += below[::-1]

    def _read(self, place: Reached) -> bytes:
        size = min(place.info.st_size, MAX_BYTES) if place.info else 0
        self._count(self._bytes, place.control, size, OTHERS_BYTES, "bytes were read")
        return place.read(MAX_BYTES)

    def _count(
        self, counts: dict[int | None, int], control: Control, more: int, most: int, what: str
    ) -> None:
        """Count what is looked at of others. ShimError: it is enough."""
        if control.trusted:
            return
        so_far = counts[control.owner] = counts.get(control.owner, 0) + more
        if so_far > most:
            whose = "several users" if control.owner is None else user(control.owner)
            raise ShimError(f"is not looked at: more than {most} {what} of {whose}")


def _type(entry: "os.DirEntry[str]") -> int:
    if entry.is_symlink():
        return stat.S_IFLNK
    return stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else stat.S_IFREG
