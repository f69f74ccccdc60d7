"""Docker's client and compose of newer Debian releases, unpacked where nothing else sees them."""

import subprocess
from pathlib import Path

from support import need
from vm import cache, debian
from vm.errors import LabError

SUITES = ("trixie", "sid")
_PLUGIN = "usr/libexec/docker/cli-plugins/docker-compose"


def client(suite: str) -> Path:
    """Return the docker client of a suite of ``SUITES``."""
    return _unpacked(suite, "docker-cli") / "usr/bin/docker"


def plugin(suite: str) -> Path:
    """Return the plugin compose of a suite."""
    return _unpacked(suite, "docker-compose") / _PLUGIN


def install(suite: str, folder: Path) -> None:
    """Let the docker client whose settings are in ``directory`` find it."""
    (folder / "cli-plugins").mkdir(parents=True, exist_ok=True)
    link = folder / "cli-plugins/docker-compose"
    link.unlink(missing_ok=True)
    link.symlink_to(plugin(suite))


def _unpacked(suite: str, package: str) -> Path:
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
