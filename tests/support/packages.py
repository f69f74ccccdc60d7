"""Packages of other Debian suites, unpacked where nothing else sees them."""

import subprocess
from pathlib import Path

from support import need
from vm import cache, debian
from vm.errors import LabError


def unpacked(suite: str, package: str) -> Path:
    """Return the directory with the files of a package, fetched once."""
    need.root()
    need.program("dpkg-deb")
    try:
        versions = debian.versions(suite, (package,))

        def build(folder: Path) -> None:
            [file] = debian.download(suite, versions, folder / "deb")
            subprocess.run(["dpkg-deb", "-x", file, folder / "root"], check=True)

        name = f"{suite}-{package}-{cache.key(versions[package])}"
        return cache.built("packages", name, build) / "root"
    except LabError as error:
        need.kernel(False, f"Debian's archive cannot be had: {error}")
        raise
