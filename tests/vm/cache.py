"""Where built kernels, trees and initramfs live: outside the work tree, keyed by their inputs."""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Entries that nobody has asked for that long are of a fragment, a Debian, an engine gone by.
DAYS = 14


def root() -> Path:
    """Return the cache directory: SHIM_CACHE, or /var/cache/seccomp-shim."""
    return Path(os.environ.get("SHIM_CACHE") or "/var/cache/seccomp-shim")


def key(*inputs: str | bytes) -> str:
    """Return a short digest of everything that a build depends on."""
    digest = hashlib.sha256()
    for part in inputs:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def built(kind: str, name: str, build: Callable[[Path], None]) -> Path:
    """Return the directory ``kind/name``, after ``build`` has filled it if it was missing.

    A build works in a directory beside it and is renamed when complete, so an interrupted one is
    never taken for a result; a second run waits for the first. The directory's time says when it
    was last asked for, see ``prune``.
    """
    place = root() / kind / name
    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place):
        if not place.is_dir():
            work = place.parent / f".{name}.partial"
            if work.exists():
                shutil.rmtree(work)
            work.mkdir()
            build(work)
            work.rename(place)
        os.utime(place)
    return place


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Keep other runs from making ``place`` at the same time."""
    with open(place.parent / f".{place.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prune() -> None:
    """Remove what nobody has asked for in ``DAYS`` days: results, builds that died, logs."""
    long_ago = time.time() - DAYS * 24 * 3600
    for place in root().glob("*/*"):
        if place.parent.name == "apt" or place.name.endswith(".lock"):
            continue
        name = place.name.removeprefix(".").removesuffix(".partial")
        with open(place.parent / f".{name}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # it is being built
                continue
            if place.lstat().st_mtime < long_ago:
                shutil.rmtree(place)
