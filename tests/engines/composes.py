"""Docker's client and compose of newer Debian releases, unpacked where nothing else sees them."""

from pathlib import Path

from support.packages import unpacked

SUITES = ("trixie", "sid")
_PLUGIN = "usr/libexec/docker/cli-plugins/docker-compose"


def client(suite: str) -> Path:
    """Return the docker client of a suite of ``SUITES``."""
    return unpacked(suite, "docker-cli") / "usr/bin/docker"


def plugin(suite: str) -> Path:
    """Return the plugin compose of a suite."""
    return unpacked(suite, "docker-compose") / _PLUGIN


def install(suite: str, folder: Path) -> None:
    """Let the docker client whose settings are in ``directory`` find it."""
    (folder / "cli-plugins").mkdir(parents=True, exist_ok=True)
    link = folder / "cli-plugins/docker-compose"
    link.unlink(missing_ok=True)
    link.symlink_to(plugin(suite))
