"""A throwaway view of this host: writes to its system directories vanish with it."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support import need

_OWN_PIDS = ("--pid", "--fork", "--kill-child", "--mount-proc")
FOLDERS = ("/etc", "/home", "/opt", "/run", "/usr/local", "/var/lib", "/var/log")
# Where else `patch --all` finds profiles, whatever it was called for.
PROFILES = tuple(each for each in ("/srv", "/usr/share/containers") if os.path.isdir(each))
_OURS = (
    "/opt/seccomp-shim /usr/local/bin/seccomp-shim /etc/seccomp-shim /var/log/seccomp-shim "
    "/run/seccomp-shim /var/lib/seccomp-shim"
)
_ENTER = """
set -eu
trap exit TERM
mount -t tmpfs none "$1"
scratch=$1
shift
for folder; do
    layer=$scratch$folder
    mkdir -p "$layer/upper" "$layer/work"
    mount -t overlay overlay \
        -o "lowerdir=$folder,upperdir=$layer/upper,workdir=$layer/work" "$folder"
done
# What users of this machine have logged is for no status in the view to tell.
for folder in /home/*/.local/state/seccomp-shim; do
    [ ! -d "$folder" ] || mount -t tmpfs none "$folder"
done
echo ready
# As PID 1 of a namespace it must reap what is left to it, as the shell's wait does.
[ $$ = 1 ] || exec sleep infinity
sleep infinity &
wait
"""


class Host:
    """The view; ``run`` runs shell text in it."""

    def __init__(self, pid: int, *, pids: bool = False) -> None:
        namespaces = ["--mount", "--pid"] if pids else ["--mount"]
        self.enter = ["nsenter", *namespaces, "--target", str(pid)]

    def run(
        self, script: str, *, code: int | None = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``script``, return its outcome; an exit status other than ``code`` fails the test."""
        result = subprocess.run(
            [*self.enter, "sh", "-c", script], text=True, capture_output=True, env=env, check=False
        )
        if code is not None:
            assert result.returncode == code, f"{script}\n{result.stdout}{result.stderr}"
        return result


@contextlib.contextmanager
def throwaway(scratch: Path, base: Host | None = None, *, pids: bool = False) -> Iterator[Host]:
    """Yield a view of ``base``, or of this host without seccomp-shim.

    ``scratch`` is an empty directory to mount on. With ``pids`` its processes have a PID namespace
    of their own and end with it, however far they have gone into the background.
    """
    need.root()
    need.kernel("\toverlay\n" in Path("/proc/filesystems").read_text(), "no overlay file system")
    keeper = subprocess.Popen(
        [
            *(base.enter if base else ()),
            *("unshare", "--mount", *(_OWN_PIDS if pids else ())),
            *("sh", "-c", _ENTER, "sh", str(scratch), *FOLDERS, *PROFILES),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdout is not None
    inner = keeper.pid
    try:
        assert keeper.stdout.readline() == "ready\n"
        entered = base is not None and "--pid" in base.enter
        assert not (pids and entered), "one PID namespace is enough"
        if pids or entered:  # unshare or nsenter waits for who is in there
            inner = _only_child(keeper.pid)
        host = Host(inner, pids=pids or entered)
        if base is None:
            host.run(f"rm -rf {_OURS}")
        yield host
    finally:
        # A namespace's PID 1 is gone when all the others in it are.
        os.kill(inner, signal.SIGTERM)
        keeper.wait()
        keeper.stdout.close()


def listing(host: Host) -> list[str]:
    """List what is in the directories that the installer may touch: owner, mode and size."""
    places = " ".join(folder for folder in FOLDERS if folder != "/run")
    script = f"find {places} ! -type d -printf '%p %m %U:%G %s %l\\n'; find {places} -type d"
    return sorted(host.run(script).stdout.splitlines())


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
