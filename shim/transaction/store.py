"""What is kept between runs: backups by content, a journal of every run, and the lock."""

import contextlib
import hashlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from shim import atomic
from shim.errors import ShimError
from shim.host.untrusted_files import secure
from shim.transaction.lock import held

ROOT = "/var/lib/seccomp-shim"
# How long a run of few files waits for another one to end.
PATIENCE = 60.0


def whose() -> str:
    """Return the name of who works here: under sudo, that of the user who called it."""
    name = os.environ.get("SUDO_USER", "") if os.geteuid() == 0 else ""
    if name:
        return name
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def directory() -> str:
    """Return the directory of backups and journals: the machine's for root, else a user's."""
    if os.geteuid() == 0:
        return ROOT
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "seccomp-shim")


@contextlib.contextmanager
def opened(path: str, seconds: float = 0) -> Iterator["State"]:
    """Yield the state in directory ``path`` to this process alone.

    ShimError: another still has it after ``seconds``, or others can change it.
    """
    state = State(path)
    secure(path)
    for each in (state.backups, state.runs):
        secure(each, 0o700)
    busy = ShimError("another patch or rollback is at work", subject=path, hint="try again")
    with held(os.path.join(path, "fleet.lock"), busy, seconds):
        state.sweep()
        yield state


def checksum(data: bytes) -> str:
    """Return the name that content goes by here: its SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


# A file that is not there counts as an empty one, which no profile is: the first change makes it,
# and rolling that back removes it.
NOTHING = checksum(b"")


class State:
    """Where backups and journals are."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.backups = os.path.join(path, "backups")
        self.runs = os.path.join(path, "runs")
        self._kept: set[str] = set()

    def backup(self, name: str) -> str:
        """Return the path of a backup by the checksum of its content."""
        return os.path.join(self.backups, name[:2], name)

    def keep(self, name: str, data: bytes) -> None:
        """Keep ``data``, whose checksum is ``name``; the caller syncs the file system after.

        One that is there already is believed only if it is whole: a power failure can cut short
        what had not been synced, and nothing had been changed by then.
        """
        if name in self._kept:
            return
        path = self.backup(name)
        if _content(path) != data:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            atomic.write_atomic(path, data, 0o600, durable=False)
        self._kept.add(name)

    def sync(self, name: str) -> None:
        """Put one backup on the disk, and the way to it."""
        path = self.backup(name)
        for each in (path, os.path.dirname(path), self.backups):
            fd = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def read_backup(self, name: str) -> bytes:
        """Read a backup. ShimError: it is gone or damaged."""
        path = self.backup(name)
        data = _content(path)
        if data is None or checksum(data) != name:
            what = "is gone" if data is None else "is damaged"
            raise ShimError(f"the backup {what}", subject=path)
        return data

    def sweep(self) -> None:
        """Remove drafts of backups that a run left when it was killed; needs the lock."""
        for draft in Path(self.backups).glob("*/.*"):
            draft.unlink()


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
