"""The verbs install, uninstall and status, run as a user does in a view of the host."""

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines import user_lands
from support import engines, image
from support.checkout import CHECKOUT
from support.host import Host

BIN = "/opt/seccomp-shim/bin"
WRAPPER = f"{BIN}/seccomp-shim-runtime"
FILE = engines.DAEMON_JSON
LOG = "/var/log/seccomp-shim/audit.jsonl"
AS_NOBODY = "setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nonexistent"
TEST_SYSCALL, EPERM, ENOSYS = 400, 1, 38


def shim(
    host: Host, *words: str, code: int | None = 0, before: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run the program in a view of the host; ``before`` are variables of its environment."""
    line = " ".join([f"cd / && {before} {sys.executable} -P -m shim", *words])
    return host.run(
        line, code=code, env={"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/sbin:/usr/bin"}
    )


def prepare(host: Host, settings: str = "") -> None:
    """Put the executables, the settings and the log's directory where install.sh would."""
    render = "from shim.engines.registration import hookfile; from pathlib import Path; "
    render += f"hookfile.render_all(Path('{BIN}'))"
    host.run(
        f"mkdir -p {BIN} /etc/seccomp-shim /var/log/seccomp-shim\n"
        f"rm -rf {BIN}/* /var/lib/seccomp-shim\n"
        f'cd {CHECKOUT} && {sys.executable} -c "{render}"\n'
        f"echo '{settings}' >/etc/seccomp-shim/config.yaml"
    )


def remove(host: Host, code: int = 0) -> "subprocess.CompletedProcess[str]":
    """Have install.sh remove the program, as if it had put it there."""
    python = f'shift; exec env PYTHONPATH={CHECKOUT} {sys.executable} -P "$@"'  # but for its -I
    place = f"{BIN}/../current/bin"
    return host.run(
        f"mkdir -p {place}; echo '#!/bin/sh\n{python}' >{place}/python; chmod 755 {place}/python\n"
        f": >{BIN}/../manifest; {CHECKOUT}/install.sh --uninstall",
        code=code,
    )


def write(host: Host, path: str, data: bytes | None) -> None:
    """Put ``data`` at ``path`` in the view; None: there is nothing."""
    if data is not None:
        text = base64.b64encode(data).decode()
        host.run(f"mkdir -p $(dirname {path}); echo {text} | base64 -d >{path}")


def read(host: Host, path: str) -> bytes:
    """Read ``path`` in the view."""
    return base64.b64decode(host.run(f"base64 {path}").stdout)


def state(host: Host) -> str:
    """Return all that an install may have touched, with contents and modes."""
    return host.run(
        "cd /; for p in etc/docker var/lib/seccomp-shim etc/seccomp-shim/profiles; do"
        " [ ! -e $p ] || find $p -printf '%p %M %U %G %l\\n' -type f -exec sha256sum {} + | sort;"
        " done"
    ).stdout


def outcome(docker: engines.Docker, *options: str) -> int:
    """Return how the test syscall ended in a new container."""
    arguments = ("run", "--rm", "--network", "none", *options, image.NAME)
    return docker.calls(*arguments, image.CALLER, str(TEST_SYSCALL))[TEST_SYSCALL]


def info(docker: engines.Docker) -> dict[str, Any]:
    """Ask the daemon."""
    told: dict[str, Any] = json.loads(docker("info", "--format", "{{json .}}").stdout)
    return told


def replace_daemon(docker: engines.Docker, user_land: str) -> None:
    """Go on with that user land's dockerd as the one of the view."""
    program = user_lands.program(user_land, engines.DOCKERD)
    if program != engines.DOCKERD:
        docker.stop()
        docker.host.run(f"mount --bind {program} {engines.DOCKERD}")
        docker.start()
        assert info(docker)["ServerVersion"] in docker.host.run(f"{program} --version").stdout


def add_other_runtime(
    docker: engines.Docker, *, default: str, args: Sequence[str] = ("--debug",)
) -> Path:
    """Return the daemon a runtime of somebody else's, ``other``; return the log of its calls."""
    other = docker.folder / "other"
    other.write_text(f'#!/bin/sh\necho "$@" >>{other}.log\nexec runc "$@"\n')
    other.chmod(0o755)
    runtimes = {"other": {"path": str(other), "runtimeArgs": list(args)}}
    docker.configure({"default-runtime": default, "runtimes": runtimes})
    docker.reload()
    return Path(f"{other}.log")
