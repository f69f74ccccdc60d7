"""Docker's own default profile with the calls added that the kernel injects."""

import json
from pathlib import Path

from shim import catalog
from shim.engines.docker import builtin
from shim.engines.docker.install_advice import HostFacts
from shim.engines.registration import Host
from shim.errors import ShimError
from shim.host import runtimes
from shim.profile.edit import amended, plan
from shim.profile.enosys_line import LISTED

DIRECTORY = "/etc/seccomp-shim/profiles"


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
    heard = [n for n in lacking if runtimes.knows(found.libseccomp, calls[n].libseccomp)]
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
    return host.path(f"{DIRECTORY}/docker-{release}.json")


def is_profile(path: str) -> bool:
    """Tell whether ``path`` is one that ``profile_path`` gives."""
    directory, _, name = path.rpartition("/")
    return directory.endswith(DIRECTORY) and name.startswith("docker-")
