"""Docker compose of newer Debian releases, unpacked where nothing else sees it."""

import subprocess
from pathlib import Path

from support import need
from vm import cache, debian
from vm.errors import LabError

SUITES = ("trixie", "sid")
_PLUGIN = "usr/libexec/docker/cli-plugins/docker-compose"


def plugin(suite: str) -> Path:
    """Give the client plugin of a suite of ``SUITES``, fetched once."""
    need.root()
    need.program("dpkg-deb")
    try:
        [(package, version)] = debian.versions(suite, ("docker-compose",)).items()

        def build(folder: Path) -> None:
            [file] = debian.download(suite, {package: version}, folder / "deb")
            subprocess.run(["dpkg-deb", "-x", file, folder / "root"], check=True)

        place = cache.built("compose", f"{suite}-{cache.key(version)}", build)
    except LabError as error:
        need.kernel(False, f"Debian's archive cannot be had: {error}")
        raise
    return place / "root" / _PLUGIN


def install(suite: str, folder: Path) -> None:
    """Let the docker client whose settings are in ``folder`` find it."""
    (folder / "cli-plugins").mkdir(parents=True, exist_ok=True)
    link = folder / "cli-plugins/docker-compose"
    link.unlink(missing_ok=True)
    link.symlink_to(plugin(suite))
