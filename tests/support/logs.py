"""Logs that rotate: what is kept of one, in order."""

import gzip
import time
from pathlib import Path


def kept(log: Path) -> list[Path]:
    """Return the log and what was rotated of it, the newest first."""
    return [log, *sorted(log.parent.glob(f"{log.name}.[0-9]*"), key=_number)]


def read(path: Path) -> bytes:
    """Return what a log says, compressed or not."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def settled(log: Path) -> list[Path]:
    """Return what is kept of the log once all that was rotated is compressed."""
    deadline = time.monotonic() + 30
    while any(path.suffix != ".gz" for path in kept(log)[1:]):
        assert time.monotonic() < deadline, kept(log)
        time.sleep(0.05)
    return kept(log)


def _number(path: Path) -> int:
    return int(path.name.removesuffix(".gz").rpartition(".")[2])
