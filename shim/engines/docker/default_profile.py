"""Which way fits this host's Docker, and why: the wrapper as runtime, or an augmented profile."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shim import catalog, config
from shim.engines.docker import builtin, dockerd
from shim.engines.registration import Host, executable
from shim.errors import ShimError
from shim.host import cache
from shim.host import runtimes as runtime
from shim.profile.docker import evaluate
from shim.profile.edit import amended, plan
from shim.profile.enosys_line import LISTED

_STOCK = {"", "runc", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux"}
_RUNC_SHIM = "io.containerd.runc.v2"
PROFILES = "/etc/seccomp-shim/profiles"


class HostFacts(NamedTuple):
    """What decides: the kernel's states, dockerd's version, the real runtime, its libseccomp.

    ``test_syscall`` is the number that the settings have adjusted on any kernel; 0: none.
    """

    states: Mapping[str, str]
    release: str
    real: str
    libseccomp: str | None
    test_syscall: int = 0


def facts(host: Host, release: str, args: list[str]) -> HostFacts:
    """Look at the kernel and at the runtime that ``args`` (see ``real_args``) name."""
    states = cache.states()
    settings = config.load()[0]
    chosen = next(iter(settings["runtimes"].values()), "")
    real = real_of(args) or chosen or host.program("runc") or ""
    library = runtime.libseccomp_version(real) if real else None
    return HostFacts(states, release, real, library, settings["test_syscall"])


def real_of(args: list[str]) -> str:
    """Return the real runtime that the wrapper's arguments name, empty if they name none."""
    return args[args.index("--real-runtime") + 1] if "--real-runtime" in args[:-1] else ""


def real_args(host: Host, name: str, runtimes: Mapping[str, Any]) -> list[str]:
    """Return the wrapper's arguments that have it call what Docker's runtime ``name`` is.

    Empty for Docker's own runc. ShimError: that runtime is none that is called by a command line.
    """
    entry = runtimes.get(name)
    if entry is None and name in _STOCK:
        return []
    entry = entry or {}
    path, arguments = entry.get("path"), entry.get("runtimeArgs") or []
    kind = entry.get("runtimeType", "" if path else name)
    if not path and kind == _RUNC_SHIM:
        path = (entry.get("options") or {}).get("BinaryName") or "runc"
    if not path or kind not in {"", _RUNC_SHIM} or "containerd-shim" in str(path):
        raise ShimError(
            f"Docker's runtime {name} is a containerd shim, which cannot be wrapped",
        )
    executable.refuse_machines(name, str(path))
    if arguments and not str(arguments[0]).startswith("-"):
        raise ShimError(f"Docker's runtime {name} has arguments that are no options")
    found = path if os.path.isabs(path) else host.program(path)
    if not found:
        raise ShimError(f"Docker's runtime {name} names a program that is not there: {path}")
    return ["--real-runtime", found, *map(str, arguments)]


def advice(found: HostFacts) -> tuple[str, str]:
    """Return the way that fits (``runtime``, ``profile``, ``none``) and the reason in one line."""
    calls = catalog.kernel_injected()
    told = " or ".join(f"{name} ({state})" for name, state in found.states.items())
    needed = [name for name, state in found.states.items() if state == "filtered"]
    if not needed:
        today = "nothing needs to be adjusted today; the wrapper then hands everything on as it is"
        if found.test_syscall:
            today = f"what is adjusted today is for the test syscall {found.test_syscall} alone"
        return "none", f"this kernel kills no container over {told}: {today}"
    library = f"{found.real or 'runc'} has libseccomp {found.libseccomp or 'of unknown version'}"
    unheard = [n for n in needed if not runtime.knows(found.libseccomp, calls[n].libseccomp)]
    if unheard:
        return "runtime", (
            f"the runtime fits: {library}, which drops the name {unheard[0]} from any profile"
        )
    document, reason = builtin.profile(found.release)
    if document is None:
        return "runtime", f"the runtime fits: {reason}"
    if all(evaluate(document.tree, name)[0] == "allows" for name in needed):
        return "runtime", (
            f"Docker {found.release} allows {', '.join(needed)} by itself and {library}: only "
            "containers with a profile of their own need the runtime"
        )
    return "profile", (
        f"--profile fits and costs nothing: Docker {found.release} lacks {', '.join(needed)}, and "
        f"{library}, which knows it; the runtime also covers containers with their own profile"
    )


def profile(found: HostFacts) -> tuple[bytes, list[str]]:
    """Make the augmented default profile: its text, and the calls that it now allows.

    ShimError: it would change nothing, and why.
    """
    if not found.release:
        raise ShimError("--profile must know dockerd's version", hint="is dockerd on PATH?")
    document, reason = builtin.profile(found.release)
    if document is None:
        raise ShimError(reason, hint="install without --profile")
    calls = catalog.kernel_injected()
    _, findings = plan(document, calls.values(), {}, "always")
    lacking = [finding.syscall for finding in findings if finding.changed]
    if not lacking:
        raise ShimError(f"--profile: Docker {found.release} allows these calls by itself already")
    heard = [n for n in lacking if runtime.knows(found.libseccomp, calls[n].libseccomp)]
    needed = [n for n in lacking if found.states.get(n) == "filtered"] or lacking[:1]
    if not heard or not set(needed) <= set(heard):
        raise ShimError(
            f"--profile would change nothing: {found.real or 'runc'} has libseccomp "
            f"{found.libseccomp or 'of unknown version'}, which drops the name {needed[0]}",
            hint="install without --profile: the wrapper does not need it",
        )
    edits, _ = plan(document, [calls[name] for name in heard], {}, "always", line=LISTED)
    text = json.dumps(amended(document.tree, edits), indent=2)
    return text.encode() + b"\n", heard


def profile_path(host: Host, release: str) -> Path:
    """Return where the augmented profile of that dockerd is kept."""
    return host.path(f"{PROFILES}/docker-{release}.json")


def is_profile(path: str) -> bool:
    """Tell whether ``path`` is one that ``profile_path`` gives."""
    directory, _, name = path.rpartition("/")
    return directory.endswith(PROFILES) and name.startswith("docker-")


def release_of(host: Host, info: Mapping[str, Any] | None) -> str:
    """Return the version of the running daemon, else of the installed one."""
    return str((info or {}).get("ServerVersion") or dockerd.release(host))
