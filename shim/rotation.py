"""The log, rotated by its writer and compressed by a process that nobody waits for.

``audit.jsonl.1`` is the newest, as logrotate has it. Whatever is killed at whichever step: no line
is lost, and what was left is made good the next time. A start loads this module only where its own
line made the log too long.
"""

import fcntl
import sys

from shim import atomic, files, runtime_directory
from shim import lightos as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_COMPRESS_SECONDS = 600
# Writers that had the log open as it was rotated have written by then.
_GRACE_SECONDS, _TRIES = 1, 10
_CHUNK = 1 << 20
_COMPRESS = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from shim.rotation import compress; compress(sys.argv[2])"
)


def rotate(path: str, most: "Sequence[int]") -> bool:
    """Give the log at ``path`` a number if it is as long as ``most`` says; tell whether it was.

    Nothing that goes wrong here is worth a container's start: the log then goes on to grow.
    """
    directory, name = os.path.split(path)
    try:
        at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not _rotate(at, name, most):
            return False
        _detach([sys.executable, "-IS", "-c", _COMPRESS, _packages(), path])
    except OSError:
        return False
    finally:
        os.close(at)
    return True


def _rotate(at: int, name: str, most: "Sequence[int]") -> bool:
    lock = _locked(at, name, "rotating")
    if lock < 0:
        return False
    try:
        size, kept = most
        old = files.open_regular(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=at)
        try:
            info = os.fstat(old)
            if info.st_size < size:
                return False  # another writer was quicker
            _shift(at, name, kept)
            draft = f".{name}.{os.getpid()}-{os.urandom(4).hex()}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            new = os.open(draft, flags, 0o600, dir_fd=at)
            try:
                atomic.take_after(old, info, new)
            finally:
                os.close(new)
        finally:
            os.close(old)
        try:
            # There is always a log: the hooks' shell part writes to one that is there.
            os.link(name, f"{name}.1", src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
        except FileExistsError:  # logrotate was at work beside us
            os.unlink(draft, dir_fd=at)
            raise
        except OSError:  # a file system that has no links
            os.rename(name, f"{name}.1", src_dir_fd=at, dst_dir_fd=at)
        os.rename(draft, name, src_dir_fd=at, dst_dir_fd=at)
        return True
    finally:
        os.close(lock)


def _locked(at: int, name: str, work: str, *, wait: bool = False) -> int:
    """Return the lock for ``work`` on the log ``name``, -1 where another holds it.

    Whoever may read the log's directory can lock what is in it: so it is in a directory that is
    ours alone, where there is one. None is given where others may write to the log's directory:
    there names could be somebody else's.
    """
    info = os.fstat(at)
    if info.st_uid != os.geteuid() or info.st_mode & 0o022:
        return -1
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    private, _ = runtime_directory.directory("rotation")
    if private < 0:
        fd = os.open(f".{work}-{name}", flags, 0o600, dir_fd=at)
    else:
        lock = f"{work}-{info.st_dev:x}-{info.st_ino:x}-{name}"
        try:
            fd = os.open(lock, flags, 0o600, dir_fd=private)
        finally:
            os.close(private)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return -1
    return fd


def _shift(at: int, name: str, kept: int) -> None:
    """Give each rotated log the next number; those beyond ``kept`` go, and drafts of the killed."""
    for each in _names(at):
        if each.startswith(f".{name}.") and each != _packed(name):
            os.unlink(each, dir_fd=at)
    for number, ending, each in _rotated(at, name)[::-1]:
        if number >= kept or (number == 1 and _same(at, each, name)):
            os.unlink(each, dir_fd=at)
        else:
            os.rename(each, f"{name}.{number + 1}{ending}", src_dir_fd=at, dst_dir_fd=at)


def _names(at: int) -> "list[str]":
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def _rotated(at: int, name: str) -> "list[tuple[int, str, str]]":
    """Return the rotated logs, the newest first: their number, how they end, the name."""
    found = []
    for each in _names(at):
        if each.startswith(f"{name}."):
            ending = ".gz" if each.endswith(".gz") else ""
            number = each.removeprefix(f"{name}.").removesuffix(ending)
            if number.isdecimal() and str(int(number)) == number:
                found.append((int(number), ending, each))
    return sorted(found)


def _same(at: int, one: str, other: str) -> bool:
    """Tell whether two names are one file: who rotated was killed before there was a new one."""
    infos = [os.stat(each, dir_fd=at, follow_symlinks=False) for each in (one, other)]
    return infos[0].st_ino == infos[1].st_ino


def _packages() -> str:
    return os.path.dirname(os.path.dirname(__file__))


def _detach(command: "list[str]") -> None:
    """Run ``command`` as init's child, with nothing of ours and at the lowest priority."""
    child = os.fork()
    if child:
        try:  # noqa: SIM105 - contextlib is an import more
            os.waitpid(child, 0)
        except ChildProcessError:
            pass  # our caller ignores SIGCHLD, and so do we
        return
    try:
        os.setsid()
        if not os.fork():
            os.chdir("/")
            null = os.open("/dev/null", os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.nice(19)
            os.execv(command[0], command)
    finally:
        os._exit(0)


def compress(path: str) -> None:
    """Compress the rotated logs of ``path`` that are not; what goes wrong leaves them as they are.

    One process does it at a time, and the log goes on to be rotated meanwhile.
    """
    import signal

    signal.alarm(_COMPRESS_SECONDS)
    directory, name = os.path.split(path)
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock = _locked(at, name, "compressing")
        if lock < 0:
            return
        try:
            while waiting := [each for _, ending, each in _rotated(at, name) if not ending]:
                if not _compress(at, name, waiting[0]):
                    return
        finally:
            os.close(lock)
    except OSError:
        return  # a full disk: it stays as it is, and is tried again the next time
    finally:
        os.close(at)


def _compress(at: int, name: str, rotated: str) -> bool:
    """Put a compressed file in the place of ``rotated``, whatever it is called by then."""
    import gzip
    import shutil

    old = files.open_regular(rotated, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=at)
    with open(old, "rb") as source:
        info = os.fstat(old)
        if info.st_nlink != 1 or info.st_uid != os.geteuid():
            return False
        _wait_for_writers(old)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        new = os.open(_packed(name), flags, 0o600, dir_fd=at)
        try:
            with open(new, "wb") as target:
                with gzip.GzipFile(name, "wb", 6, fileobj=target, mtime=info.st_mtime) as packed:
                    shutil.copyfileobj(source, packed, _CHUNK)
                target.flush()
                atomic.take_after(old, info, new)
                os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))
                os.fsync(new)
        except OSError:  # a disk that is full is not to be kept so
            os.unlink(_packed(name), dir_fd=at)
            raise
    lock = _locked(at, name, "rotating", wait=True)
    try:
        for _, _, each in _rotated(at, name):
            if os.stat(each, dir_fd=at, follow_symlinks=False).st_ino == info.st_ino:
                os.rename(_packed(name), f"{each}.gz", src_dir_fd=at, dst_dir_fd=at)
                os.unlink(each, dir_fd=at)
                return True
        os.unlink(_packed(name), dir_fd=at)  # it was too old by then, and went
        return True
    finally:
        os.close(lock)


def _wait_for_writers(rotated: int) -> None:
    """Wait until nobody writes to a log that had it open as it was rotated.

    A writer has the log's lock and looks what the log is before it writes. Whoever may read the log
    can keep that lock as well: so it is not waited for for good.
    """
    import time

    renamed = os.fstat(rotated).st_ctime
    time.sleep(max(0, min(_GRACE_SECONDS, renamed + _GRACE_SECONDS - time.time())))
    for _ in range(_TRIES):
        try:
            fcntl.flock(rotated, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_GRACE_SECONDS)


def _packed(name: str) -> str:
    return f".{name}.gz"
