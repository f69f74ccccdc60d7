"""A file system seen from a folder, as chroot would show it: links and ``..`` do not lead out."""

import os
import stat
from collections.abc import Iterator

from shim.errors import ShimError
from shim.profile.document import MAX_BYTES

MAX_DEPTH = 12
# How many entries of a folder tree are looked at; nobody keeps this many profiles in one.
MAX_ENTRIES = 200_000
_MAX_LINKS = 40  # as the kernel (fs/namei.c, MAXSYMLINKS)


class Root:
    """The folder ``path`` as the root of all paths."""

    def __init__(self, path: str = "/") -> None:
        self.top = os.path.realpath(path)

    def real(self, path: str) -> str:
        """Give the true path of ``path``, all links followed inside of the root.

        ShimError: a loop of links.
        """
        if self.top == "/":
            return os.path.realpath(path)
        todo = path.split("/")[::-1]
        done: list[str] = []
        links = 0
        while todo:
            step = todo.pop()
            if step in ("", "."):
                continue
            if step == "..":
                del done[-1:]
                continue
            try:
                target = os.readlink(os.path.join(self.top, *done, step))
            except OSError:
                done.append(step)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise ShimError("is a loop of symbolic links", subject=path)
            if target.startswith("/"):
                done = []
            todo += target.split("/")[::-1]
        return os.path.join(self.top, *done)

    def shown(self, real: str) -> str:
        """Give a true path as it looks from inside."""
        if self.top == "/" or not f"{real}/".startswith(f"{self.top}/"):
            return real
        return real[len(self.top) :] or "/"

    def read(self, path: str) -> bytes:
        """Read a regular file, up to one byte more than a profile may have. OSError, ShimError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self.real(path), flags)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise ShimError("is no regular file")
            return os.read(fd, min(info.st_size, MAX_BYTES) + 1)
        finally:
            os.close(fd)

    def entries(self, folder: str) -> list[os.DirEntry[str]]:
        """Give what is in a folder, by name. OSError: it is none, or cannot be read."""
        with os.scandir(self.real(folder)) as found:
            return sorted(found, key=lambda entry: entry.name)

    def files(self, folder: str, depth: int = MAX_DEPTH) -> Iterator[str | OSError]:
        """Give the paths of all files under ``folder``, and the errors met; OSError of a limit.

        Links to files are given, links to folders followed, once each. A ``depth`` of less than
        MAX_DEPTH is a choice: what lies deeper, and in hidden folders, is left out in silence.
        """
        todo = [(folder, 0)]
        seen: set[str] = set()
        count = 0
        while todo:
            here, level = todo.pop()
            try:
                real = self.real(here)
                if real in seen:
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
            for entry in entries:
                count += 1
                if count > MAX_ENTRIES:
                    yield OSError(
                        0, f"has more than {MAX_ENTRIES} entries: not all were seen", folder
                    )
                    return
                path = os.path.join(here, entry.name)
                if entry.is_symlink():
                    try:
                        is_folder = os.path.isdir(self.real(path))
                    except ShimError:  # a loop, which whoever reads the file will meet
                        is_folder = False
                else:
                    is_folder = entry.is_dir(follow_symlinks=False)
                if not is_folder:
                    yield path
                elif depth < MAX_DEPTH and (level == depth or entry.name.startswith(".")):
                    continue
                elif level == depth:
                    yield OSError(0, f"lies more than {depth} folders deep: not looked into", path)
                else:
                    below.append((path, level + 1))
            todo += below[::-1]
