"""A file read up to a limit; made, replaced and removed whole or not at all.

The container start path imports this module: it imports nothing but the error.
"""

import errno
import os
import stat

from shim.errors import ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_ACCESS_LIST = "system.posix_acl_access"


def read(path: str, limit: int) -> bytes:
    """Give the first ``limit`` + 1 bytes: enough to see that a file is too large."""
    with open(path, "rb") as file:
        return file.read(limit + 1)


def open_regular(path: str, flags: int = os.O_RDONLY, *, dir_fd: "int | None" = None) -> int:
    """Open a regular file; OSError if it is anything else: that could keep us waiting, or worse.

    Nothing else is opened for good, and the opening itself waits for nobody: neither for who opens
    a FIFO's other end nor for a device. A file that is made has mode 0640.
    """
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o640, dir_fd=dir_fd)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "is no regular file", path)


def read_regular(path: str, limit: int, flags: int = 0, *, dir_fd: "int | None" = None) -> bytes:
    """Read the whole of a regular file; OSError if it is none, or has more than ``limit`` bytes."""
    fd = open_regular(path, flags, dir_fd=dir_fd)
    with open(fd, "rb", buffering=0) as file:
        data = read_up_to(file.fileno(), limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"has more than {limit >> 10} KiB", path)
    return data


def read_up_to(fd: int, size: int) -> bytes:
    """Read ``size`` bytes, or all that there are."""
    data = os.read(fd, min(size, os.fstat(fd).st_size + 1))
    while len(data) < size and (part := os.read(fd, min(size - len(data), 1 << 16))):
        data += part
    return data


def replace(
    path: str,
    data: bytes,
    expected: bytes,
    before_rename: "Callable[[], None]",
    *,
    durable: bool = True,
) -> None:
    """Put ``data`` in the place of ``expected``, the file's content as it was read.

    A reader sees the old file or the new one; if ``durable``, also after a crash. A symbolic link
    stays one: its target is replaced. Mode, owner and extended attributes (ACLs and security labels
    are such) are kept. ``before_rename`` is called when all is written but nothing changed yet;
    what it raises leaves the file as it was. ShimError: no regular file, or changed since it was
    read.
    """
    target = os.path.realpath(path)
    old = os.stat(target)
    if not stat.S_ISREG(old.st_mode):
        raise ShimError("is no regular file and cannot be replaced", subject=path)
    draft = _draft(target, data, lambda fd: take_after(target, old, fd), durable)
    try:
        if not _is_still(target, expected):
            raise _changed(path)
        before_rename()
        try:
            os.rename(draft, target)
        except OSError as error:
            raise _about(path, error) from None
    except BaseException:
        try:  # noqa: SIM105 - contextlib is an import that every container would pay for
            os.unlink(draft)
        except FileNotFoundError:
            pass
        raise
    if durable:
        sync_folder(os.path.dirname(target))


def create(path: str, data: bytes, mode: int, before_link: "Callable[[], None]") -> None:
    """Put ``data`` where no file is, whole or not at all.

    A dangling symbolic link stays one: its target is made. ``before_link`` is called as
    ``before_rename`` is in ``replace``. ShimError: by now there is a file.
    """
    target = os.path.realpath(path)
    draft = _draft(target, data, lambda fd: os.fchmod(fd, mode))
    try:
        if os.path.lexists(target):
            raise _changed(path)
        before_link()
        try:
            os.link(draft, target)
        except FileExistsError:
            raise _changed(path) from None
        except OSError as error:
            raise _about(path, error) from None
    finally:
        os.unlink(draft)
    sync_folder(os.path.dirname(target))


def remove(path: str, expected: bytes, before_unlink: "Callable[[], None]") -> None:
    """Remove the file whose content is ``expected``; of a symbolic link, its target.

    ``before_unlink`` is called as ``before_rename`` is in ``replace``. ShimError: changed since.
    """
    target = os.path.realpath(path)
    if not _is_still(target, expected):
        raise _changed(path)
    before_unlink()
    os.unlink(target)
    sync_folder(os.path.dirname(target))


def take_after(source: "str | int", old: os.stat_result, fd: int) -> None:
    """Give the open file ``fd`` the owner, mode and attributes of ``source``, in this order.

    A new owner clears set-id bits, and a mode without write permission forbids attributes.
    """
    os.fchown(fd, old.st_uid, old.st_gid)
    names = os.listxattr(source)
    for name in names:
        os.setxattr(fd, name, os.getxattr(source, name))
    if _ACCESS_LIST not in names and _ACCESS_LIST in os.listxattr(fd):
        os.removexattr(fd, _ACCESS_LIST)  # a new file's, from its folder's default
    os.fchmod(fd, stat.S_IMODE(old.st_mode))


def _draft(target: str, data: bytes, finish: "Callable[[int], None]", durable: bool = True) -> str:
    """Write ``data`` to a file beside ``target`` and give its path; ``finish`` gets its fd."""
    folder = os.path.dirname(target)
    draft = os.path.join(
        folder, f".{os.path.basename(target)[:200]}.{os.getpid()}-{os.urandom(4).hex()}"
    )
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(draft, flags, 0o600)
    except OSError as error:
        raise _about(folder, error) from None
    try:
        with open(fd, "wb") as file:
            file.write(data)
            finish(file.fileno())
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except BaseException:
        os.unlink(draft)
        raise
    return draft


def _is_still(path: str, expected: bytes) -> bool:
    try:
        return read_regular(path, len(expected)) == expected
    except OSError:
        return False


def _changed(path: str) -> ShimError:
    return ShimError("somebody else changed it meanwhile", subject=path, hint="try again")


def _about(path: str, error: OSError) -> OSError:
    """Give the same error with a name that the user knows, not the draft's."""
    return OSError(error.errno, error.strerror, path)


def sync_folder(folder: str) -> None:
    """Put a folder's entries on the disk: without it a rename need not survive a crash."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
