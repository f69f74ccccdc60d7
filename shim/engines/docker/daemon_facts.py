"""Find out what ``choose`` must know of a Docker daemon, from its own answers and this host."""

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from shim import abi, config
from shim.engines.docker import builtin
from shim.engines.docker.choose import RUNTIME, Daemon
from shim.engines.docker.config import is_ours
from shim.errors import ShimError
from shim.host import cache
from shim.host import runtimes as runtime
from shim.profile.document import Document, read

_SECONDS = 20
_FEATURES = "org.opencontainers.runtime-spec.features"
_LIBSECCOMP = "io.github.seccomp.libseccomp.version"
_SECCOMP = "name=seccomp,profile="
_LOOK = """
import sys
sys.path.insert(0, sys.argv[1])
from shim.host import cache, runtimes
from shim.startjson import dumps
print(dumps([cache.facts()["syscalls"], runtimes.libseccomp_version(sys.argv[2])]))
"""


def describe(command: Sequence[str], of: str = "") -> Daemon:
    """Ask the daemon that a docker client talks to, given the client with its global options.

    The admin's test syscall, where one is set, is one call more; ``of`` is that of ``gather``.
    ShimError: the daemon does not answer, or is no Docker daemon.
    """
    questions = (
        ["info", "--format", "{{json .}}"],
        ["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"],
    )
    asked = [
        subprocess.Popen(
            [*command, *question],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for question in questions
    ]
    try:
        info, address = (client.communicate(timeout=_SECONDS) for client in asked)
    except subprocess.TimeoutExpired:
        raise ShimError(f"the daemon did not answer within {_SECONDS} seconds") from None
    finally:
        for client in asked:
            client.kill()
            client.communicate()
    settings = config.load()[0]
    found = gather(_answer(*info), address[0].strip(), settings["test_syscall"], of=of)
    return wanting(found, settings)


def wanting(daemon: Daemon, settings: Mapping[str, Any]) -> Daemon:
    """Return ``daemon`` with what the settings want of calls that no rule names."""
    return replace(daemon, unknown_calls=settings["unknown_calls"] == "enosys")


def gather(
    info: Mapping[str, Any],
    address: str,
    test_syscall: int = 0,
    *,
    of: str = "",
    apart: bool = False,
) -> Daemon:
    """Return what is known of the daemon that answered ``info`` (GET /info) at ``address``.

    ``test_syscall`` is a number to be let through as well, on whatever kernel. ``apart`` looks at
    this host from a child process: a program with threads must not fork as our probe does. ``of``
    is the runtime whose libseccomp is wanted, where that is not the default one. ShimError: it is
    no Docker daemon's answer.
    """
    version, runtimes = info.get("ServerVersion"), info.get("Runtimes")
    if not isinstance(version, str) or not version or not isinstance(runtimes, dict):
        raise ShimError("what answers is no Docker daemon")
    default = str(info.get("DefaultRuntime", ""))
    entry = runtimes.get(of or default) or {}
    kernel, files = _here(info, address)
    states, libseccomp = _runtime_facts(str(entry.get("path") or "") if files else "", apart=apart)
    if not kernel:
        states = dict.fromkeys(states, "unknown")
    if test_syscall:
        states = {**states, f"{abi.TEST_SYSCALL}{test_syscall}": "filtered"}
    known, reason = builtin.profile(version)
    confinement = _confinement(info.get("SecurityOptions"))
    own = "" if confinement in {None, "default", "builtin", "unconfined"} else str(confinement)
    linux = info.get("OSType", "linux") == "linux"
    return Daemon(
        version=version,
        states=states,
        machine=str(info.get("Architecture", "") if linux else info.get("OSType")),
        seccomp=confinement is not None,
        confines=confinement != "unconfined",
        runtimes=frozenset(runtimes),
        ours=frozenset({RUNTIME, *(name for name, each in runtimes.items() if is_ours(each))}),
        default_runtime=default,
        libseccomp=libseccomp or _libseccomp_in_info(entry),
        builtin=known,
        builtin_reason=reason,
        configured=own,
        configured_profile=_read(own) if own and files else None,
        local=files,
    )


def _answer(output: str, errors: str) -> dict[str, Any]:
    """Read what ``docker info`` printed; ShimError if it could not ask the daemon."""
    try:
        info = json.loads(output)
    except ValueError:
        info = None
    told = isinstance(info, dict) and (info.get("ServerVersion") or info.get("ServerErrors"))
    if not isinstance(info, dict) or (errors and not told):  # clients from 28 on leave all empty
        raise ShimError(_first_line(errors) or "docker info printed no JSON")
    failures = info.get("ServerErrors")
    if isinstance(failures, list) and failures:
        raise ShimError(_first_line(str(failures[0])))
    return info


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _confinement(options: object) -> str | None:
    """Return what confines containers by default; None: the daemon runs without seccomp."""
    for option in options if isinstance(options, list) else ():
        if str(option).startswith(_SECCOMP):
            return str(option).removeprefix(_SECCOMP)
    return None


def _libseccomp_in_info(entry: Mapping[str, Any]) -> str | None:
    """Return the libseccomp that the daemon says its runtime has (Docker 25: info's status)."""
    try:
        return str(json.loads(entry["status"][_FEATURES])["annotations"][_LIBSECCOMP])
    except (KeyError, TypeError, ValueError):
        return None


def _here(info: Mapping[str, Any], address: str) -> tuple[bool, bool]:
    """Tell whether the daemon runs on this very kernel, and whether it sees the files we see.

    A socket says little: ssh and Docker Desktop put one here for a daemon elsewhere. No answer of
    a daemon names its boot, so release and memory to the byte stand for it.
    """
    path = address.removeprefix("unix://")
    kernel = (info.get("KernelVersion"), info.get("MemTotal")) == (os.uname().release, _memory())
    if path == address or not kernel:
        return False, False
    if info.get("Name") != os.uname().nodename:
        return True, False
    return True, _same_root(path)


def _memory() -> int:
    """Return the host's memory in bytes, from where the daemon reads it."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return int(file.readline().split()[1]) * 1024


def _same_root(path: str) -> bool:
    """Tell whether who listens on a socket has our root directory; assumed if it is not shown."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_SECONDS)
            client.connect(path)
            raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return os.path.samefile(f"/proc/{struct.unpack('3i', raw)[0]}/root", "/")
    except PermissionError:
        return True  # who is not root may not look
    except OSError:
        return False


def _read(path: str) -> Document | None:
    try:
        return read(Path(path).read_bytes(), path)
    except (OSError, ShimError):
        return None


def _runtime_facts(path: str, *, apart: bool) -> tuple[dict[str, str], str | None]:
    """Return each kernel-injected call's state here, and the libseccomp of runtime ``path``."""
    if apart:
        calls, version = _runtime_facts_apart(
            path, *(_stamp(each) for each in (path, "/etc/ld.so.cache"))
        )
    else:
        calls = cache.facts()["syscalls"]
        version = runtime.libseccomp_version(path) if path else None
    return {name: call["state"] for name, call in calls.items()}, version


@lru_cache(maxsize=16)
def _runtime_facts_apart(path: str, *_stamps: int) -> Any:
    """Do so in a child process, once for each state of the runtime's files."""
    packages = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LOOK, packages, path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        raise ShimError(f"cannot look at this host: {done.stderr.strip()[-200:]}")
    return json.loads(done.stdout)


def _stamp(path: str) -> int:
    try:
        return os.stat(path if os.path.isabs(path) else runtime.find(path)).st_mtime_ns
    except OSError:
        return 0
