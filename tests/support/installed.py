"""seccomp-shim in the view of the host that an engine has, as installed, with a test syscall."""

import subprocess
import sys

from support.checkout import CHECKOUT
from support.containers import TEST_SYSCALL
from support.host import Host

BIN = "/opt/seccomp-shim/bin"
SETTINGS = "/etc/seccomp-shim/config.yaml"
LOG = "/var/log/seccomp-shim/audit.jsonl"
_RENDER = (
    "from pathlib import Path; from shim.engines.registration import hookfile; "
    f"hookfile.render_all(Path({BIN!r}))"
)


def install(host: Host) -> None:
    """Put the executables and settings there; no engine knows of them yet."""
    host.run(
        f"umask 022; mkdir -p {BIN} /etc/seccomp-shim /var/log/seccomp-shim\n"
        f"echo 'test_syscall: {TEST_SYSCALL}' >{SETTINGS}"
    )
    subprocess.run([*command(host)[:-2], "-c", _RENDER], check=True)


def command(host: Host, *words: str) -> list[str]:
    """Return the command line of ``seccomp-shim`` with ``words``."""
    path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
    python = [sys.executable, "-m", "shim"]
    return [*host.enter, "env", "-i", path, f"PYTHONPATH={CHECKOUT}", *python, *words]


def verb(host: Host, *words: str) -> str:
    """Run ``seccomp-shim`` with ``words``; give what it said."""
    done = subprocess.run(command(host, *words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout
