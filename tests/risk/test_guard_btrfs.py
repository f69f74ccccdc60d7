"""Whom guard finds on a btrfs, where the kernel's numbers of a file are not those of stat(2)."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.risk.targets import Targets
from support import need


@pytest.fixture
def subvolumes(tmp_path: Path) -> Iterator[list[Path]]:
    """Return two subvolumes of a real btrfs, in each of which the next file has one inode."""
    need.root()
    mkfs = need.program("mkfs.btrfs")
    image, top = tmp_path / "image", tmp_path / "top"
    image.touch()
    os.truncate(image, 128 << 20)
    subprocess.run([mkfs, "--quiet", image], check=True, capture_output=True)
    top.mkdir()
    mounted = subprocess.run(["mount", "-o", "loop", image, top], check=False).returncode == 0
    need.kernel(mounted, "no btrfs can be mounted")
    try:
        for name in ("one", "two"):
            made = ["btrfs", "subvolume", "create", str(top / name)]
            subprocess.run(made, check=True, capture_output=True)
        yield [top / "one", top / "two"]
    finally:
        subprocess.run(["umount", top], check=True)


def test_files_of_two_subvolumes_are_told_apart(subvolumes: list[Path]) -> None:
    """A program, and a library with its inode in another subvolume: who maps both is met by both.

    /proc/PID/maps has one device for all of the btrfs, stat(2) another one for each subvolume.
    """
    sleep = Path(shutil.copy(need.program("sleep"), subvolumes[0] / "sleep"))
    (libm,) = {each for each in _mapped("import math") if "/libm" in each}
    library = Path(shutil.copy(libm, subvolumes[1] / "own.so"))
    stranger = shutil.copy(need.program("sh"), subvolumes[1] / "sh")
    assert sleep.stat().st_ino == library.stat().st_ino
    environment = {"LD_PRELOAD": str(library)}
    with subprocess.Popen([sleep, "60"], env=environment) as process:
        try:
            maps = Path(f"/proc/{process.pid}/maps")
            deadline = time.monotonic() + 20
            while str(library) not in maps.read_text():
                assert time.monotonic() < deadline
            lines = maps.read_text().splitlines()
            devices = {line.split()[3] for line in lines if "/one/" in line or "/two/" in line}
            assert len(devices) == 1
            assert {os.stat(each).st_dev for each in (sleep, library)}.isdisjoint(
                os.makedev(*(int(part, 16) for part in each.split(":"))) for each in devices
            )
            for met in (sleep, library):
                assert Targets((), None, str(met)).among([process.pid]) == [process.pid]
            assert Targets((), None, str(stranger)).among([process.pid]) == []
        finally:
            process.kill()


def _mapped(code: str) -> list[str]:
    """Return the files whose code an interpreter maps that has run ``code``."""
    told = f"{code}\nprint(open('/proc/self/maps').read())"
    text = need.output("/usr/bin/python3", "-c", told)
    return [line.split()[-1] for line in text.splitlines() if "r-xp" in line]
