"""Bytes of the audit log a start and a health check, told in full and in brief."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shim.start import repeats
from support.joined import Joiner
from support.wrapped import WrappedLab

STARTS, CHECKS = 2, 5
_LOOK_SECONDS = 20


def measure(folder: Path, runtime: str) -> list[dict[str, Any]]:
    """Count what one start, and one exec of a health check, adds to the log."""
    name = os.path.basename(runtime)
    (folder / "starts").mkdir()
    (folder / "execs").mkdir()
    lab = WrappedLab(folder / "starts", runtime)
    joiner = Joiner(folder / "execs", runtime)
    path = joiner.wrapped.log_path

    def starts() -> None:
        for _ in range(STARTS):
            with lab.container() as container:
                container.ready()
                _wait_for_look(lab)
                container.outcomes()

    def checks() -> None:
        with joiner.joinable():
            for _ in range(CHECKS):
                joiner.outcomes()
        repeats.settle(str(path), None)

    return [
        _row(f"{name}: a start", lab, starts, STARTS, ("log_detail: full",), ()),
        _row(
            f"{name}: an exec of {CHECKS} that are alike",
            joiner.wrapped,
            checks,
            CHECKS,
            ("log_detail: full",),
            ("log_repeats: count",),
        ),
    ]


def _row(
    name: str,
    lab: WrappedLab,
    work: Callable[[], None],
    times: int,
    before: tuple[str, ...],
    after: tuple[str, ...],
) -> dict[str, Any]:
    found = []
    for settings in (before, after):
        lab.configure("allow", None, *settings)
        lab.log_path.write_bytes(b"")
        work()
        found.append(lab.log_path.stat().st_size / times)
    return {
        "name": name,
        "before": round(found[0]),
        "after": round(found[1]),
        "ratio": round(found[0] / found[1], 2),
    }


def _wait_for_look(lab: WrappedLab) -> None:
    """Wait until the look after the start is over, which in full writes a line."""
    deadline = time.monotonic() + _LOOK_SECONDS
    time.sleep(0.2)
    while time.monotonic() < deadline and _looks(lab):
        time.sleep(0.02)


def _looks(lab: WrappedLab) -> bool:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes()
        except OSError:
            continue
        if os.fsencode(f"{lab.folder}/config.yaml") in text and b"poststart" in text:
            return True
    return False
