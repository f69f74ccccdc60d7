"""A real unprivileged user, who owns a directory and exchanges what is in it all the time."""

import contextlib
import ctypes
import mmap
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from support import need

UID = 54321
_RENAMEAT2, _EXCHANGE, _HERE = 316, 2, -100


@contextlib.contextmanager
def homes() -> Iterator[Path]:
    """Give a directory of root's that everybody can enter, as /home is; it is gone afterwards."""
    need.root()
    folder = Path(tempfile.mkdtemp(prefix="homes-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def give(*paths: Path) -> None:
    """Give files and directories, and all in them, to the user."""
    for path in paths:
        for each in (path, *path.rglob("*")):
            os.chown(each, UID, UID, follow_symlinks=False)


def become() -> None:
    """Become the user, for good."""
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)


@contextlib.contextmanager
def exchanging(pairs: list[tuple[Path, Path]]) -> Iterator[Callable[[], int]]:
    """Have the user exchange each directory with a link over and over meanwhile.

    Gives how often he has so far. In the end the directories are where they were.
    """
    need.kernel(os.uname().machine == "x86_64", "renameat2 is called by its number on x86-64")
    count = mmap.mmap(-1, 8)
    pid = os.fork()
    if pid == 0:
        try:
            _exchange(pairs, count)
        finally:
            os._exit(1)
    try:
        yield lambda: int.from_bytes(count[:8], "little")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for one, other in pairs:
            if one.is_symlink():
                aside = one.with_name("aside")
                one.rename(aside)
                other.rename(one)
                aside.rename(other)


def _exchange(pairs: list[tuple[Path, Path]], count: mmap.mmap) -> None:
    become()
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    names = [(os.fsencode(one), os.fsencode(other)) for one, other in pairs]
    done = 0
    while True:
        for one, other in names:
            if syscall(_RENAMEAT2, _HERE, one, _HERE, other, _EXCHANGE) == 0:
                done += 1
        count[:8] = done.to_bytes(8, "little")
