"""A throwaway view of this host: writes to its system folders vanish with it."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support import need

FOLDERS = ("/etc", "/opt", "/run", "/usr/local", "/var/log")
_OURS = (
    "/opt/seccomp-shim /usr/local/bin/seccomp-shim /etc/seccomp-shim /var/log/seccomp-shim "
    "/run/seccomp-shim"
)
_ENTER = """
set -eu
mount -t tmpfs none "$1"
scratch=$1
shift
for folder; do
    layer=$scratch$folder
    mkdir -p "$layer/upper" "$layer/work"
    mount -t overlay overlay \
        -o "lowerdir=$folder,upperdir=$layer/upper,workdir=$layer/work" "$folder"
done
echo ready
exec sleep infinity
"""


class Host:
    """The view; ``run`` runs shell text in it."""

    def __init__(self, pid: int) -> None:
        self.enter = ["nsenter", "--mount", "--target", str(pid)]

    def run(
        self, script: str, *, code: int | None = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``script`` and give its outcome; an exit code other than ``code`` fails the test."""
        result = subprocess.run(
            [*self.enter, "sh", "-c", script], text=True, capture_output=True, env=env, check=False
        )
        if code is not None:
            assert result.returncode == code, f"{script}\n{result.stdout}{result.stderr}"
        return result


@contextlib.contextmanager
def throwaway(scratch: Path, base: Host | None = None) -> Iterator[Host]:
    """Give a view of ``base``, or of this host without seccomp-shim.

    ``scratch`` is an empty folder to mount on.
    """
    need.root()
    need.kernel("\toverlay\n" in Path("/proc/filesystems").read_text(), "no overlay file system")
    keeper = subprocess.Popen(
        [
            *(base.enter if base else ()),
            *("unshare", "--mount", "sh", "-c", _ENTER, "sh", str(scratch), *FOLDERS),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdout is not None
    try:
        assert keeper.stdout.readline() == "ready\n"
        host = Host(keeper.pid)
        if base is None:
            host.run(f"rm -rf {_OURS}")
        yield host
    finally:
        keeper.kill()
        keeper.wait()
        keeper.stdout.close()
