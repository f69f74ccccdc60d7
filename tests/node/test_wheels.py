"""install.sh with a directory of wheels, as the node's pod runs it: for nodes as they come."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.checkout import CHECKOUT
from support.host import Host, throwaway

NO_NETWORK = {"PIP_INDEX_URL": "http://127.0.0.1:1/", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Yield a view of this host that forgets all that is done to it."""
    with throwaway(tmp_path) as host:
        yield host


def _install(host: Host, wheels: Path, code: int) -> str:
    script = f"{CHECKOUT}/install.sh --no-demo --wheels {wheels}"
    done = host.run(script, code=code, env=NO_NETWORK)
    return done.stdout + done.stderr


def test_neither_network_nor_pip_is_needed(host: Host, wheels: Path) -> None:
    """Without Debian's python3-venv, and with no index to be reached, all comes from the wheels."""
    host.run("mount --bind /dev/null $(echo /usr/lib/python3.*/ensurepip/__init__.py)")
    assert "Installing seccomp-shim" in _install(host, wheels, 0)
    assert host.run("seccomp-shim --version").stdout.startswith("seccomp-shim ")
    assert "up to date" in _install(host, wheels, 0)


def test_what_the_host_lacks_is_told_before_anything_is_made(host: Host, wheels: Path) -> None:
    """No system package is installed: one line names what is missing, and nothing is there."""
    host.run("for name in runc crun; do mount --bind /dev/null $(command -v $name); done")
    said = _install(host, wheels, 2).strip().splitlines()[-1]
    assert said.endswith("install these by hand, then run this again: runc")
    host.run("test ! -e /opt/seccomp-shim")
