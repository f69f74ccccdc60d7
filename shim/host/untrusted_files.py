"""Files reached from the root directory on, and changed with no more rights than is safe there.

Whoever can change a directory can put a link, or another directory, in the place of what somebody
with more rights has just looked at: a path that is used twice can mean two things. So a path is
gone along once: each directory is opened in the one before it, no link is followed by the kernel,
and all that comes after is done in the directory that is open. openat2(2) would go along in one
call (RESOLVE_NO_SYMLINKS, Linux 5.6), but does not tell whose the directories on the way are, and
that decides here:

- where root alone (or who runs us) can change every directory on the way, links are followed, step
  by step, and what is there is changed as anywhere else;
- where a directory on the way belongs to another user, no link is followed, and what is there is
  changed with the rights of that user alone, so that nothing happens that he could not do himself;
- where others share a directory, or several users own those on the way, nothing is changed.
"""

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from shim import atomic
from shim.errors import ShimError
from shim.host.credentials import as_us, rights, user

_MAX_LINKS = 40  # as the kernel (fs/namei.c, MAXSYMLINKS)
_ON_THE_WAY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SHARED = stat.S_IWGRP | stat.S_IWOTH  # of an access list, the group's bits are what it grants most


class Control(NamedTuple):
    """Who can change a place besides root and who runs us.

    ``owner`` is a user to whom it is left, None: nobody. ``barred`` says why nothing is to be
    changed there, empty: it may be.
    """

    owner: int | None = None
    barred: str = ""

    @property
    def trusted(self) -> bool:
        """Tell whether what is written there is as good as root's own word."""
        return self.owner is None and not self.barred


class _Directory(NamedTuple):
    """An open directory on the way."""

    fd: int
    path: str
    info: os.stat_result
    control: Control


class Reached:
    """What a path leads to: the entry ``name`` of the open directory ``directory``.

    ``path`` is without links. ``info`` is None where there is no such entry; ``name`` is empty for
    a directory that was reached itself. Used as a context it is closed at the end.
    """

    __slots__ = ("control", "directory", "info", "name", "path")

    def __init__(
        self, directory: int, name: str, path: str, info: os.stat_result | None, control: Control
    ) -> None:
        self.directory = directory
        self.name = name
        self.path = path
        self.info = info
        self.control = control

    def __enter__(self) -> "Reached":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self.directory)

    def entry(self, name: str, info: os.stat_result | None) -> "Reached":
        """Return an entry of the directory that was reached itself."""
        own = os.fstat(self.directory)
        fd = os.dup(self.directory)
        here = _Directory(fd, self.path, own, self.control)
        return Reached(fd, name, os.path.join(self.path, name), info, _control(here, info))

    @property
    def author(self) -> Control:
        """Tell who can change what the file says: where its place is root's he need not be root."""
        if not self.control.trusted or self.info is None:
            return self.control
        if self.info.st_uid not in _trusted():
            return Control(self.info.st_uid)
        mode, group = self.info.st_mode, self.info.st_gid
        if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and group not in (0, os.getegid())):
            return Control(None, f"others can change it (mode {stat.S_IMODE(mode):o})")
        return self.control

    def open(self) -> int:
        """Open the regular file for reading, with the rights that hold there. OSError, ShimError.

        A device is not even opened: that alone starts a watchdog or rewinds a tape.
        """
        if self.info is not None and not stat.S_ISREG(self.info.st_mode):
            raise ShimError("is no regular file", subject=self.path)
        with self.rights():
            try:
                fd = os.open(self.name, _TO_READ, dir_fd=self.directory)
            except OSError as error:
                raise OSError(error.errno, error.strerror, self.path) from None
        if not stat.S_ISREG(_info(fd).st_mode):
            os.close(fd)
            raise ShimError("is no regular file", subject=self.path)
        return fd

    def read(self, limit: int) -> bytes:
        """Read the first ``limit`` + 1 bytes: enough to see that a file is too large."""
        with open(self.open(), "rb") as file:
            return file.read(limit + 1)

    def replace(self, data: bytes, expected: bytes, before: Callable[[], None]) -> None:
        """Put ``data`` in the place of ``expected`` as ``atomic.replace_in`` does.

        ``before`` is called with our own rights. ShimError, OSError.
        """
        with self.rights():
            atomic.replace_in(self.directory, self.name, self.path, data, expected, as_us(before))
            self.sync()

    def create(self, data: bytes, mode: int, before: Callable[[], None]) -> None:
        """Put ``data`` where no file is as ``atomic.create_in`` does. ShimError, OSError."""
        with self.rights():
            atomic.create_in(self.directory, self.name, self.path, data, mode, as_us(before))
            self.sync()

    def remove(self, expected: bytes, before: Callable[[], None]) -> None:
        """Remove the file as ``atomic.remove_in`` does. ShimError, OSError."""
        with self.rights():
            atomic.remove_in(self.directory, self.name, self.path, expected, as_us(before))
            self.sync()

    def refuse(self, *, others: bool = True) -> None:
        """Raise a ShimError where nothing must be changed, or not without the rights of others."""
        if self.control.barred:
            raise ShimError(f"is left alone: {self.control.barred}", subject=self.path)
        if self.control.owner is not None and not others:
            who = user(self.control.owner)
            raise ShimError(f"{who} can change it", subject=self.path, hint=f"do this as {who}")

    def rights(self) -> "contextlib.AbstractContextManager[None]":
        """Have the rights that hold there meanwhile: those of the owner of its directories."""
        return rights(self.control.owner)

    def sync(self) -> None:
        """Put the directory's entries on the disk: without it a rename may not survive a crash."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            fd = os.open(".", flags, dir_fd=self.directory)
        except PermissionError:  # its owner may write it and not read it; it is the same directory
            with rights(None), named(os.path.dirname(self.path)):
                fd = os.open(".", flags, dir_fd=self.directory)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def reach(path: str, top: str = "/", *, follow: bool = True) -> Reached:
    """Go along ``path``, as a process would whose root directory is ``top``.

    Without ``follow`` it has no links (OSError: ELOOP). OSError: it leads nowhere; ShimError: to a
    link that others can change, or in a circle.
    """
    return _reach(path, top, follow=follow, whole=False)


def directory(path: str, top: str = "/") -> Reached:
    """Go along ``path`` as ``reach`` does, to a directory that is then open itself."""
    return _reach(path, top, follow=True, whole=True)


def secure(path: str, mode: int = 0o755) -> None:
    """Make directory ``path`` and those above it where they are missing, for ourselves alone.

    ShimError: others can change it, or what leads to it.
    """
    path = os.path.abspath(path)
    try:
        with directory(path) as found:
            _refuse_shared(found, path)
            return
    except FileNotFoundError:
        secure(os.path.dirname(path))
    with reach(path) as place, contextlib.suppress(FileExistsError), named(path):
        os.mkdir(place.name, mode, dir_fd=place.directory)
    with directory(path) as found:
        _refuse_shared(found, path)


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """Have an OSError tell ``path``: below a directory descriptor it knows the last part of it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


class PathWalk:
    """Paths below ``top``, one after the other: the directory of the last one stays open."""

    def __init__(self, top: str = "/") -> None:
        self.top = top
        self._last: tuple[str, bool, Reached] | None = None

    def reach(self, path: str, *, follow: bool = True) -> Reached:
        """Go along ``path`` as the function ``reach`` does."""
        parent, name = os.path.split(path)
        if name in ("", ".", ".."):
            return reach(path, self.top, follow=follow)
        if self._last is None or self._last[:2] != (parent, follow):
            self.close()
            found = _reach(parent, self.top, follow=follow, whole=True)
            self._last = (parent, follow, found)
        else:
            found = self._last[2]
        info: os.stat_result | None = None
        with contextlib.suppress(FileNotFoundError), named(path):
            info = os.stat(name, dir_fd=found.directory, follow_symlinks=False)
        if info is not None and stat.S_ISLNK(info.st_mode):
            return reach(path, self.top, follow=follow)
        return found.entry(name, info)

    def close(self) -> None:
        """Let go of the directory."""
        if self._last is not None:
            self._last[2].close()
            self._last = None

    def __del__(self) -> None:
        self.close()


def _reach(path: str, top: str, *, follow: bool, whole: bool) -> Reached:
    levels = [_root()]
    try:
        if top == "/":
            path = os.path.join(os.getcwd(), path)
        else:
            _along(levels, top, 1, follow=True, whole=True)
        name, info = _along(levels, path, len(levels), follow=follow, whole=whole)
        last = levels.pop()
    finally:
        for each in levels:
            os.close(each.fd)
    if not name:
        return Reached(last.fd, "", last.path, None, last.control)
    return Reached(last.fd, name, os.path.join(last.path, name), info, _control(last, info))


def _along(
    levels: list[_Directory], path: str, base: int, *, follow: bool, whole: bool
) -> tuple[str, os.stat_result | None]:
    """Open the directories on a way, each in the one before it, and give the last entry on it.

    ``levels`` are those that are open; the first ``base`` of them are not left by ``..`` or a link.
    """
    todo = _steps(path)
    links = 0
    while todo:
        step = todo.pop()
        here = levels[-1]
        if step == "..":
            if len(levels) > base:
                os.close(levels.pop().fd)
            continue
        try:
            if todo or whole:
                found = _entered(here, step)
                info = found.info
                if stat.S_ISDIR(info.st_mode):
                    levels.append(found)
                    continue
                os.close(found.fd)
                if not stat.S_ISLNK(info.st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            else:
                info = os.stat(step, dir_fd=here.fd, follow_symlinks=False)
                if not stat.S_ISLNK(info.st_mode):
                    return step, info
            links += 1
            target = _target(here, step, info, follow, links)
            if target.startswith("/"):
                while len(levels) > base:
                    os.close(levels.pop().fd)
            todo += _steps(target)
        except ShimError as error:
            raise ShimError(error.message, subject=path) from None
        except FileNotFoundError as error:
            if not (todo or whole):
                return step, None
            raise OSError(error.errno, error.strerror, path) from None
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
    return "", None


def _steps(path: str) -> list[str]:
    """Return the steps of a path, the first one last."""
    return [step for step in path.split("/")[::-1] if step not in ("", ".")]


def _target(here: _Directory, name: str, info: os.stat_result, follow: bool, links: int) -> str:
    """Read a link. ShimError: it is none that we follow."""
    if not follow:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if links > _MAX_LINKS:
        raise ShimError("is a loop of symbolic links")
    control = _control(here, info)
    if not control.trusted or info.st_uid not in _trusted():
        raise ShimError(f"is reached by a link that others can change: {here.path}/{name}")
    return os.readlink(name, dir_fd=here.fd)


def _root() -> _Directory:
    fd = os.open("/", _ON_THE_WAY)
    return _Directory(fd, "/", os.fstat(fd), Control())


def _entered(here: _Directory, name: str) -> _Directory:
    fd = os.open(name, _ON_THE_WAY, dir_fd=here.fd)
    info = _info(fd)
    return _Directory(fd, os.path.join(here.path, name), info, _control(here, info))


def _info(fd: int) -> os.stat_result:
    """Return what is known of an open file. OSError: nothing, as of a user's FUSE; it is closed."""
    try:
        return os.fstat(fd)
    except OSError:
        os.close(fd)
        raise


def _control(here: _Directory, entry: os.stat_result | None) -> Control:
    """Tell who can change an entry of a directory, or put another one there."""
    owner, barred = here.control
    if barred:
        return here.control
    uid = 0 if entry is None else entry.st_uid
    is_directory = entry is not None and stat.S_ISDIR(entry.st_mode)
    if owner is not None:
        if entry is not None and uid != owner:
            barred = f"it belongs to {user(uid)}, the directory above to {user(owner)}"
        return Control(owner, barred)
    mode = here.info.st_mode
    strange = uid not in _trusted()
    # In a sticky directory only its owner, and that of an entry, can put another in its place.
    if mode & _SHARED and (not mode & stat.S_ISVTX or (strange and not is_directory)):
        return Control(None, f"others can change {here.path} (mode {stat.S_IMODE(mode):o})")
    if not (strange and is_directory):
        return Control()
    return Control(uid, "" if os.geteuid() == 0 else f"{user(uid)} can change it")


def _trusted() -> tuple[int, ...]:
    """Return the users who need not be kept from anything: root, ourselves, and who owns ``/``.

    The last is root, too, but in a user namespace, which does not know him by that number.
    """
    return (0, os.geteuid(), _owner_of_all())


@functools.cache
def _owner_of_all() -> int:
    return os.stat("/").st_uid


def _refuse_shared(found: Reached, path: str) -> None:
    mode = os.fstat(found.directory).st_mode
    if not found.control.trusted or (mode & _SHARED and not mode & stat.S_ISVTX):
        raise ShimError("others can change it, or a directory above it", subject=path)
