"""The overlay layer that makes a managed host's disk of this machine's."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from support.checkout import CHECKOUT

USER = "ops"
# Directories that are empty in every host, and what is not there at all: a host has Python and
# sudo, runc and crun, and nothing of us, of other Python packages or of engines.
HIDDEN = (
    *("etc/containerd", "etc/containers", "etc/crio", "etc/docker", "etc/kubernetes", "etc/ssh"),
    *("etc/sudoers.d", "home", "mnt", "opt", "root", "srv", "tmp", "usr/local", "var/tmp"),
    *("usr/lib/python3/dist-packages", "usr/share/containers", "var/lib/containerd"),
    *("var/lib/containers", "var/lib/docker", "var/lib/kubelet"),
)
_ABSENT = (
    *("usr/bin/docker", "usr/bin/podman", "usr/bin/containerd", "usr/sbin/dockerd"),
    *("etc/seccomp-shim", "var/lib/seccomp-shim", "var/log/seccomp-shim", "var/cache/seccomp-shim"),
    str(CHECKOUT).lstrip("/"),
)


def make_base(base: Path, keys: Path, names: Sequence[str]) -> None:
    """Make the layer that is between this machine's disk and every host's own.

    ``keys`` is the directory with ``key.pub`` (who may log in as ``USER``) and ``host_key``;
    ``names`` are those of all hosts.
    """
    base.mkdir()
    for each in HIDDEN:
        folder = _folder(base, each)
        # This hides what the directory has below (Documentation/filesystems/overlayfs.rst).
        os.setxattr(folder, "trusted.overlay.opaque", b"y")
    for each in _ABSENT:
        _folder(base, os.path.dirname(each))
        os.mknod(base / each, stat.S_IFCHR, os.makedev(0, 0))  # a whiteout, likewise
    for file, line in (
        ("passwd", f"{USER}:x:2000:2000::/home/{USER}:/bin/sh"),
        ("group", f"{USER}:x:2000:"),
        ("shadow", f"{USER}:*:19000:0:99999:7:::"),
        ("hosts", f"127.0.0.1 localhost {' '.join(names)}"),
    ):
        text = "" if file == "hosts" else Path("/etc", file).read_text()
        (base / "etc" / file).write_text(f"{text}{line}\n")
        (base / "etc" / file).chmod(0o640 if file == "shadow" else 0o644)
    home = base / "home" / USER
    home.mkdir()
    os.chown(home, 2000, 2000)
    sudoers = base / f"etc/sudoers.d/{USER}"
    sudoers.write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
    sudoers.chmod(0o440)
    (base / "etc/ssh/authorized_keys").write_bytes((keys / "key.pub").read_bytes())
    (base / "etc/ssh/host_key").write_bytes((keys / "host_key").read_bytes())
    (base / "etc/ssh/host_key").chmod(0o600)


def _folder(base: Path, path: str) -> Path:
    """Make a directory in a layer, and those on the way to it, as they are on this machine."""
    made = base
    for step in path.split("/"):
        made = made / step
        if not made.exists():
            made.mkdir()
            below = Path("/") / made.relative_to(base)
            made.chmod(stat.S_IMODE(below.stat().st_mode) if below.exists() else 0o755)
    return made
