"""The Docker daemon of this host: its processes, its service's flags, what it says of itself."""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shim.engines import unixhttp
from shim.engines.registration import Host
from shim.errors import ShimError
from shim.host import processes as proc
from shim.host.runtimes import numbers

DEFAULT = "/etc/docker/daemon.json"
SOCKET = "/var/run/docker.sock"
_SECONDS = 20


class Flags(NamedTuple):
    """A command line of dockerd, and ``source``: the process or file that it was found in."""

    source: str
    words: tuple[str, ...]

    def values(self, *names: str) -> list[str]:
        """Return the values of the flags ``names`` (as ``--host``), in their order."""
        found = []
        for index, word in enumerate(self.words):
            name, equals, value = word.partition("=")
            if name in names:
                found.append(value if equals else "".join(self.words[index + 1 : index + 2]))
        return found


class RunningDockerd(NamedTuple):
    """A running dockerd."""

    pid: int
    started: str
    flags: Flags

    @property
    def config_file(self) -> Path:
        """Return the path of the configuration file that it reads."""
        named = self.flags.values("--config-file")
        try:
            here = proc.link(self.pid, "cwd")
        except OSError:  # it has ended meanwhile, or is not ours to look at
            here = "/"
        return Path(here, named[-1] if named else DEFAULT)


def running(config_file: Path) -> list[RunningDockerd]:
    """Return the daemons that read this very ``config_file``, or would if it were there.

    A dockerd in a container is none of them: its file of that name is another one.
    """
    return [each for each in processes() if _same_file(each, config_file)]


def processes() -> Iterator[RunningDockerd]:
    """Yield all dockerd processes of root and of who runs us: anybody can give a program that name.

    What another user's says of itself (its file, its socket) is not for root to act on.
    """
    for pid in proc.pids():
        with contextlib.suppress(OSError):
            program = os.path.basename(proc.link(pid, "exe"))
            if program.removesuffix(" (deleted)") == "dockerd" and _trusted(pid):
                words = proc.command_line(pid)[1:]
                flags = Flags(f"the running dockerd (pid {pid})", tuple(words))
                yield RunningDockerd(pid, proc.started(pid), flags)


def own_view(daemon: RunningDockerd) -> bool:
    """Tell whether ``daemon`` sees the files that we see."""
    try:
        return os.path.samefile(f"/proc/{daemon.pid}/root/etc", "/etc")
    except OSError:
        return False


def builds_by_us(daemon: RunningDockerd) -> bool:
    """Tell whether the first runc on the daemon's PATH, which BuildKit calls, is the wrapper."""
    try:
        environment = proc.environment(daemon.pid)
    except OSError:  # not for us to see
        return False
    paths = [os.fsdecode(each[5:]) for each in environment if each.startswith(b"PATH=")]
    runc = shutil.which("runc", path=paths[0]) if paths else None
    return os.path.basename(os.path.realpath(runc or "")) == "seccomp-shim-runtime"


def version(host: Host) -> tuple[int, ...]:
    """Return the installed dockerd's version, empty if it is not there or does not tell."""
    return numbers(release(host))[:2]


def release(host: Host) -> str:
    """Return the installed dockerd's version as it says it, empty if it is not there."""
    found = re.search(r"version (\S+?),", host.run("dockerd", "--version").stdout)
    return found[1] if found else ""


def release_of(host: Host, info: Mapping[str, Any] | None) -> str:
    """Return the version of the running daemon, else of the installed one."""
    return str((info or {}).get("ServerVersion") or release(host))


def validate(host: Host, copy: Path, where: str, what: str) -> bool:
    """Have dockerd check ``copy``, which is ``what`` for ``where``; False: this one cannot.

    dockerd learned it with 23.0. ShimError: it would refuse to start with that.
    """
    if version(host) < (23,):
        return False
    done = host.run("dockerd", "--validate", "--config-file", str(copy))
    if done.returncode:
        said = " ".join(done.stderr.split()).replace(str(copy), where)
        raise ShimError(f"dockerd refuses {what}: {said}", subject=where)
    return True


def info(daemon: RunningDockerd) -> Any:
    """Ask the running daemon itself; None: it does not answer on any local socket."""
    for address in _sockets(daemon):
        with contextlib.suppress(ValueError):
            if answer := unixhttp.get(address, "/info", _SECONDS):
                return json.loads(answer)
    return None


def reload(daemon: RunningDockerd) -> None:
    """Have the daemon read its file again: SIGHUP, to that very process. ShimError: it is gone."""
    try:
        fd = os.pidfd_open(daemon.pid)
    except ProcessLookupError:
        raise ShimError("dockerd has ended meanwhile", subject=f"pid {daemon.pid}") from None
    try:
        if proc.started(daemon.pid) != daemon.started:
            raise ShimError("dockerd has ended meanwhile", subject=f"pid {daemon.pid}")
        signal.pidfd_send_signal(fd, signal.SIGHUP)
    finally:
        os.close(fd)


def wait_until(
    daemon: RunningDockerd, holds: Callable[[dict[str, Any]], bool], seconds: float = 10
) -> dict[str, Any] | None:
    """Ask the daemon until its answer ``holds``, for ``seconds`` at most; give the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer: dict[str, Any] | None = info(daemon)
        if (answer is not None and holds(answer)) or time.monotonic() > deadline:
            return answer
        time.sleep(0.1)


def _same_file(daemon: RunningDockerd, config_file: Path) -> bool:
    theirs = Path(f"/proc/{daemon.pid}/root{daemon.config_file}")
    try:
        if config_file.exists() or theirs.exists():
            return theirs.exists() and config_file.exists() and theirs.samefile(config_file)
        if daemon.config_file != config_file:
            return False
        here, there = config_file.parent, theirs.parent
        while not (here.exists() and there.exists()):
            here, there = here.parent, there.parent
        return here.samefile(there)
    except OSError:
        return False


def _trusted(pid: int) -> bool:
    """Tell whether a process is root's or our own; the owner of its files in /proc does not."""
    real, effective = proc.status_of(pid, ("Uid",))["Uid"][:2]
    return {int(real), int(effective)} <= {0, os.geteuid()}


def _sockets(daemon: RunningDockerd) -> list[str]:
    named = daemon.flags.values("-H", "--host")
    paths = [each.removeprefix("unix://") for each in named if each.startswith("unix://")]
    return paths or [SOCKET]
