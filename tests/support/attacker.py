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
from typing import NamedTuple

from support import need
from support.fleet import DENYING, Host

UID = 54321
NAME = "profile.json"
_RENAMEAT2, _EXCHANGE, _HERE = 316, 2, -100


@contextlib.contextmanager
def homes() -> Iterator[Path]:
    """Yield a directory of root's that everybody can enter, as /home is; it is gone afterwards."""
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


class Scene(NamedTuple):
    """A host: ``etc`` is root's, ``home`` the user's."""

    host: Host
    etc: Path
    home: Path

    @property
    def options(self) -> tuple[str, ...]:
        """Return what the verbs need to be told of it."""
        return ("--root", str(self.host.root), "--state", self.host.state)

    def etc_now(self) -> list[tuple[object, ...]]:
        """Return all there is to see of root's directory; its times tell of what came and went."""
        return [
            (each.name, *_seen(each), each.read_bytes() if each.is_file() else b"")
            for each in (self.etc, *sorted(self.etc.iterdir()))
        ]

    def profiles(self, count: int) -> list[tuple[Path, Path]]:
        """Return the user profiles, which his compose file names, and links to /etc to exchange."""
        pairs = []
        services = []
        for number in range(count):
            mine, link = self.home / f"p/d{number}", self.home / f"q/d{number}"
            mine.mkdir(parents=True)
            link.parent.mkdir(exist_ok=True)
            (mine / NAME).write_bytes(DENYING)
            link.symlink_to(self.etc)
            services.append(f" s{number}: {{security_opt: ['seccomp:p/d{number}/{NAME}']}}\n")
            pairs.append((mine, link))
        (self.home / "compose.yaml").write_text("services:\n" + "".join(services))
        give(self.home)
        return pairs


def _seen(path: Path) -> tuple[int, ...]:
    info = path.lstat()
    return (
        info.st_ino,
        info.st_uid,
        info.st_mode,
        info.st_size,
        info.st_mtime_ns,
        info.st_ctime_ns,
    )
