"""The program on this machine, but with profiles, settings, state and log of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# What is the machine's, /run with its engines' sockets included: others in their place.
_HIDDEN = (
    *("/run", "/etc/seccomp-shim", "/var/log", "/var/lib/seccomp-shim", "/etc/docker"),
    *("/etc/containers", "/usr/share/containers", "/opt", "/srv", "/etc/kubernetes"),
    "/var/lib/kubelet",
)
# Where one of these is missing it is made, which the machine must not see either.
_ABOVE = ("/etc", "/var/lib", "/usr/share")
_VIEW = (
    'mount -t tmpfs none "$1" || exit; '
    f"for each in {' '.join(_ABOVE)}; do "
    'mkdir -p "$1$each/upper" "$1$each/work" && mount -t overlay '
    '-o "lowerdir=$each,upperdir=$1$each/upper,workdir=$1$each/work" overlay "$each" || exit; '
    f"done; for each in {' '.join(_HIDDEN)}; do "
    'mkdir -p "$each" && mount -t tmpfs none "$each" || exit; done; '
    'mkdir -p /var/log/seccomp-shim && cp -r "$0/." / && shift && exec "$@"'
)


def run(
    folder: Path,
    words: Sequence[str],
    files: Mapping[str, bytes],
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run Python with ``words`` where ``files``, by path, are among what is hidden otherwise."""
    top = folder / "view"
    for path, data in files.items():
        assert path.startswith(tuple(f"{each}/" for each in _HIDDEN)), path
        file = top / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    above = folder / "above"
    above.mkdir(exist_ok=True)
    command = ["unshare", "-m", "sh", "-c", _VIEW, str(top), str(above), sys.executable, *words]
    environment = os.environ if environment is None else environment
    done = subprocess.run(
        command, env=environment, input=stdin, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done
