"""One bundle directory, to be changed before something is started from it."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support import need
from support.containers import profile

APPLETS = ("cat", "env", "false", "grep", "head", "ls", "sh", "sleep", "true", "yes")
STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
# What an image's program can learn of how it was started. No process is started for the directory
# of descriptors: the shell itself looks.
LOOK = (
    'echo out; echo err >&2; env; echo "$PWD" "$@"; echo /proc/self/fd/*; ulimit -a; umask;'
    "grep -E '^(Cap|NoNewPrivs|Seccomp:|Sig[BI]|Uid|Groups)' /proc/self/status; cat; exit 3"
)
_SYSCALLS = [
    *profile()["syscalls"][0]["names"],
    *("chown", "clock_gettime", "clock_nanosleep", "fadvise64", "getpgid", "getpgrp", "getrlimit"),
    *("getsid", "kill", "lchown", "rt_sigsuspend", "sendfile", "setpgid", "time", "tkill"),
]  # fmt: skip


def seccomp(**changes: Any) -> dict[str, Any]:
    """Return a profile under which the programs here run; ``changes`` replace keys of it."""
    allowed = [{"names": sorted({*_SYSCALLS}), "action": "SCMP_ACT_ALLOW"}]
    return profile(syscalls=allowed) | changes


class Bundle:
    """A directory with a root file system of busybox, and the config.json that is to be written.

    ``record`` is where its hooks write what they were given, a file for each stage.
    """

    def __init__(self, lab: Path, name: str = "bundle") -> None:
        """Make it anew, whatever an earlier one has left."""
        self.lab = lab
        self.folder = lab / name
        self.record = lab / "record"
        self.environment = dict(os.environ)
        self.config = base(self.record)
        self.text: str | bytes | None = None
        self.missing = False
        for each in (self.folder, self.record):
            shutil.rmtree(each, ignore_errors=True)
            each.mkdir()
            each.chmod(0o755)
        self._fill(self.folder / "rootfs")

    def _fill(self, root: Path) -> None:
        for name in ("bin", "dev", "proc", "sys", "tmp", "record"):
            (root / name).mkdir(parents=True)
        busybox = self.lab / "busybox"
        if not busybox.exists():
            shutil.copy(need.program("busybox"), busybox)
        os.link(busybox, root / "bin/busybox")
        for name in APPLETS:
            (root / "bin" / name).symlink_to("busybox")
        (root / "bin/data").write_text("no program\n")

    @property
    def path(self) -> Path:
        """Where config.json is."""
        return self.folder / "config.json"

    def write(self) -> None:
        """Write config.json, unless a change has put something else there."""
        if os.path.lexists(self.path) or self.missing:
            return
        text = json.dumps(self.config, indent=1) if self.text is None else self.text
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())


def recorder(stage: str, record: Path) -> dict[str, Any]:
    """Return a hook that writes its arguments, environment and standard input."""
    where = Path("/record") if stage == "startContainer" else record
    # In one piece, whoever else writes there.
    script = f'printf "%s\\n" "$(echo "$@"; env; cat; echo)" >>{where}/{stage}'
    return {"path": "/bin/sh", "args": ["sh", "-c", script, "sh", "argument"], "env": ["A=B"]}


def mount(place: str, kind: str, source: str = "", options: Sequence[str] = ()) -> dict[str, Any]:
    """Return one of config.json's mounts."""
    mounted = {"destination": place, "type": kind, "source": source or kind}
    return mounted | ({"options": list(options)} if options else {})


def base(record: Path) -> dict[str, Any]:
    """Return the config.json that every kind begins with."""
    capabilities = ["CAP_KILL", "CAP_NET_BIND_SERVICE"]
    return {
        "ociVersion": "1.0.0",
        "root": {"path": "rootfs", "readonly": True},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "args": ["/bin/sh", "-c", LOOK, "sh", "argument"],
            "env": ["PATH=/bin", "NAME=value"],
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        },
        "hostname": "behaviour",
        "mounts": [
            mount("/proc", "proc"),
            mount("/dev", "tmpfs"),
            mount("/dev/pts", "devpts", options=["newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/record", "bind", str(record), ["bind", "rw"]),
        ],
        "hooks": {stage: [recorder(stage, record)] for stage in STAGES},
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "seccomp": seccomp(),
        },
    }
