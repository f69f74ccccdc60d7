"""A file made, replaced and removed whole or not at all.

The container start path imports this module where it writes a file: it imports nothing but the
error.
"""

import _stat as stat

from shim import lightos as os
from shim.errors import ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Whoever makes one needs milliseconds. By its age, since its maker may be of another PID namespace.
_DRAFT_SECONDS = 60
_ACCESS_LIST = "system.posix_acl_access"


def write_atomic(
    path: str,
    data: bytes,
    mode: "int | None" = None,
    *,
    dir_fd: "int | None" = None,
    durable: bool = True,
) -> None:
    """Write ``data`` to the file at ``path``, whole or not at all; OSError says why not.

    A reader sees the old file or the new one; if ``durable``, also after a crash. Mode, owner and
    attributes stay as they are, unless a ``mode`` makes it a new file of ours, whatever the umask.
    A symbolic link is replaced, not followed. No draft is left, and those of writers who were
    killed are removed.
    """
    how = os.O_RDONLY if durable else os.O_PATH
    parent, name = os.path.split(path)
    directory = os.open(parent or ".", how | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    old = -1
    try:
        _sweep(directory, name)
        if mode is None and _is_regular(directory, name):
            old = _open(directory, name, path)

        def finish(fd: int) -> None:
            if old >= 0:
                take_after(old, os.fstat(old), fd)
            elif mode is not None:
                os.fchmod(fd, mode)

        makes = 0o666 if mode is None and old < 0 else 0o600
        draft = _draft(directory, name, path, data, finish, durable, makes)
        try:
            os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError as error:
            _discard(directory, draft)
            raise _about(path, error) from None
        if durable:
            os.fsync(directory)
    finally:
        if old >= 0:
            os.close(old)
        os.close(directory)


def replace(
    path: str,
    data: bytes,
    expected: bytes,
    before_rename: "Callable[[], None]",
    *,
    durable: bool = True,
) -> None:
    """Put ``data`` in the place of ``expected``, the content of the file at ``path``.

    As ``replace_in``, for who has no directory open; a symbolic link stays one: its target is
    replaced. If not ``durable``, drafts go that were left by others who were killed.
    """
    target = os.path.realpath(path) if os.path.islink(path) else path
    how = os.O_RDONLY if durable else os.O_PATH
    directory = os.open(os.path.dirname(target) or ".", how | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        name = os.path.basename(target)
        if not durable:
            _sweep(directory, name)
        replace_in(directory, name, path, data, expected, before_rename, durable=durable)
        if durable:
            os.fsync(directory)
    finally:
        os.close(directory)


def replace_in(
    directory: int,
    name: str,
    path: str,
    data: bytes,
    expected: bytes,
    before_rename: "Callable[[], None]",
    *,
    durable: bool = True,
) -> None:
    """Put ``data`` in the place of ``expected``, the content of ``name`` in an open directory.

    A reader sees the old file or the new one; if ``durable``, also after a crash once the directory
    is synced. Mode, owner and extended attributes (ACLs and security labels are such) are kept.
    ``before_rename`` is called when all is written but nothing changed yet; what it raises leaves
    the file as it was. ShimError: no regular file, or changed since it was read. ``path`` is what
    the user knows the file by.
    """
    old = _open(directory, name, path)
    try:
        info = os.fstat(old)
        if not stat.S_ISREG(info.st_mode):
            raise ShimError("is no regular file and cannot be replaced", subject=path)
        draft = _draft(directory, name, path, data, lambda fd: take_after(old, info, fd), durable)
        try:
            if _content(old, len(expected)) != expected:
                raise _changed(path)
            before_rename()
            if identity(_stat(directory, name, path)) != identity(info):
                raise _changed(path)
            try:
                os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
            except OSError as error:
                raise _about(path, error) from None
        except BaseException:
            _discard(directory, draft)
            raise
    finally:
        os.close(old)


def create_in(
    directory: int,
    name: str,
    path: str,
    data: bytes,
    mode: int,
    before_link: "Callable[[], None]",
) -> None:
    """Put ``data`` where no file is in an open directory, whole or not at all.

    ``before_link`` is called as ``before_rename`` is in ``replace_in``. ShimError: by now there is
    a file.
    """
    draft = _draft(directory, name, path, data, lambda fd: os.fchmod(fd, mode))
    try:
        if _exists(directory, name):
            raise _changed(path)
        before_link()
        try:
            os.link(draft, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            raise _changed(path) from None
        except OSError as error:
            raise _about(path, error) from None
    finally:
        _discard(directory, draft)


def remove_in(
    directory: int, name: str, path: str, expected: bytes, before_unlink: "Callable[[], None]"
) -> None:
    """Remove the file whose content is ``expected`` from an open directory.

    ``before_unlink`` is called as ``before_rename`` is in ``replace_in``. ShimError: changed since.
    """
    old = _open(directory, name, path)
    try:
        info = os.fstat(old)
        if _content(old, len(expected)) != expected:
            raise _changed(path)
        before_unlink()
        if identity(_stat(directory, name, path)) != identity(info):
            raise _changed(path)
        try:
            os.unlink(name, dir_fd=directory)
        except OSError as error:
            raise _about(path, error) from None
    finally:
        os.close(old)


def identity(info: os.stat_result) -> "tuple[int, ...]":
    """Tell a file and its content from any other, as far as its inode tells."""
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def take_after(source: int, old: os.stat_result, fd: int) -> None:
    """Give the open file ``fd`` the owner, mode and attributes of another, in this order.

    A new owner clears set-id bits, and a mode without write permission forbids attributes.
    """
    os.fchown(fd, old.st_uid, old.st_gid)
    names = os.listxattr(source)
    for name in names:
        os.setxattr(fd, name, os.getxattr(source, name))
    if _ACCESS_LIST not in names and _ACCESS_LIST in os.listxattr(fd):
        os.removexattr(fd, _ACCESS_LIST)  # a new file's, from its directory's default
    os.fchmod(fd, stat.S_IMODE(old.st_mode))


def _draft(
    directory: int,
    name: str,
    path: str,
    data: bytes,
    finish: "Callable[[int], None]",
    durable: bool = True,
    mode: int = 0o600,
) -> str:
    """Write ``data`` to a file beside ``name`` and return its name; ``finish`` gets its fd."""
    draft = f"{_prefix(name)}{os.getpid()}-{os.urandom(4).hex()}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(draft, flags, mode, dir_fd=directory)
    except OSError as error:
        raise _about(os.path.dirname(path) or ".", error) from None
    try:
        with open(fd, "wb") as file:
            file.write(data)
            finish(file.fileno())
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except OSError as error:
        _discard(directory, draft)
        raise _about(path, error) from None
    except BaseException:
        _discard(directory, draft)
        raise
    return draft


def _prefix(name: str) -> str:
    """Return what the drafts of ``name`` begin with; a name has 255 bytes at most."""
    if len(name) <= 50:  # of whatever characters: os need not be asked for the encoding
        return f".{name}."
    return f".{os.fsdecode(os.fsencode(name)[:200])}."


def _sweep(directory: int, name: str) -> None:
    """Remove old drafts of ``name``: their makers were killed."""
    import time

    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            drafts = [each for each in os.listdir(fd) if each.startswith(_prefix(name))]
        finally:
            os.close(fd)
        for draft in drafts:
            info = os.stat(draft, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISREG(info.st_mode) and info.st_mtime < time.time() - _DRAFT_SECONDS:
                _discard(directory, draft)
    except OSError:
        pass  # it is no part of what the caller wants


def _open(directory: int, name: str, path: str) -> int:
    try:
        return os.open(name, _TO_READ, dir_fd=directory)
    except OSError as error:
        raise _about(path, error) from None


def _content(fd: int, limit: int) -> bytes:
    """Return the first ``limit`` + 1 bytes of an open file."""
    return os.pread(fd, limit + 1, 0)


def _stat(directory: int, name: str, path: str) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        raise _changed(path) from None


def _is_regular(directory: int, name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _discard(directory: int, draft: str) -> None:
    try:  # noqa: SIM105 - contextlib is an import that every container would pay for
        os.unlink(draft, dir_fd=directory)
    except FileNotFoundError:
        pass


def _changed(path: str) -> ShimError:
    return ShimError("somebody else changed it meanwhile", subject=path, hint="try again")


def _about(path: str, error: OSError) -> OSError:
    """Return the same error with a name that the user knows, not the draft's."""
    return OSError(error.errno, error.strerror, path)


def sync_directory(directory: str) -> None:
    """Put a directory's entries on the disk: without it a rename need not survive a crash."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
