"""What fits this host's Docker, and why: the wrapper as a runtime, a profile, or nothing."""

from collections.abc import Mapping
from typing import NamedTuple

from shim import catalog, config
from shim.engines.docker import builtin
from shim.engines.docker.config import real_of
from shim.engines.registration import Host
from shim.host import cache, runtimes
from shim.profile.docker import evaluate


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
    """Look at the kernel and at the runtime that ``args`` (see ``config.real_of``) name."""
    states = cache.states()
    settings = config.load()[0]
    chosen = next(iter(settings["runtimes"].values()), "")
    real = real_of(args) or chosen or host.program("runc") or ""
    library = runtimes.libseccomp_version(real) if real else None
    return HostFacts(states, release, real, library, settings["test_syscall"])


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
    unheard = [n for n in needed if not runtimes.knows(found.libseccomp, calls[n].libseccomp)]
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
