"""Commands whose containers others start: builds and services. Nothing can be added to them.

No daemon on Linux takes security options for a build, and neither a build nor a service names a
runtime. What their containers would need and do not get is said.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace

from shim.engines.docker import commandline
from shim.engines.docker.api import ask
from shim.engines.docker.choose import Daemon, Request, choose
from shim.engines.docker.rewrite import CommandPlan
from shim.profile.edit import When

_BUILTIN = Request(("seccomp=builtin",), profile_name="the daemon's own profile")
_BUILDKITS = "runc"
_HELP_SECONDS = 10


def plan(
    real: str, words: list[str], found: commandline.StartingCommand, when: When
) -> CommandPlan:
    """Plan a build or a service: its words stay as they are. ShimError: it cannot be told."""
    options = words[: found.verb]
    if found.command == "service":
        reason = _of_default(ask(real, options), "its tasks run", "each node", when)
    elif found.command == "buildx":
        reason = _of_buildkit(ask(real, options, _BUILDKITS), when)
    else:
        tells = words[: found.begin] if found.command == "build" else ()
        reason = of_build(real, options, when, tells)
    if not reason:
        return CommandPlan(words)
    what = f"docker {' '.join(words[found.verb : found.begin])}"
    return CommandPlan(words, f"{what} goes as it is: {reason}", uncovered=True)


def of_build(real: str, options: Sequence[str], when: When, tells: Sequence[str] = ()) -> str:
    """Say what the steps of a build lack in the daemon that ``options`` lead to; empty: nothing.

    The builder is BuildKit but where DOCKER_BUILDKIT says otherwise, or the help of the command
    that ``tells``.
    """
    by_buildkit = _of_buildkit(ask(real, options, _BUILDKITS), when)
    by_default = _of_default(ask(real, options), "its RUN steps run", "its host", when)
    if not by_buildkit and not by_default:
        return ""
    buildkit = commandline.builder_of(os.environ)
    if buildkit is None:
        buildkit = not tells or _is_buildkits(real, tells)
    return by_buildkit if buildkit else by_default


def _of_default(daemon: Daemon, what: str, host: str, when: When) -> str:
    """Say what containers lack that are given the default runtime; empty: nothing."""
    calls = _lacking(daemon, Request(), when)
    if not calls:
        return ""
    covers = f"`seccomp-shim install docker --default` on {host} covers them"
    return f"{what} by the default runtime {daemon.default_runtime}, without {calls}; {covers}"


def _of_buildkit(daemon: Daemon, when: When) -> str:
    """Say what the steps of BuildKit lack; empty: nothing.

    It starts them by the runc on the daemon's PATH, whatever runtimes are registered, with the
    profile built into that release (moby builder/builder-next/executor_linux.go, buildkit
    executor/oci/spec_linux.go).
    """
    own = replace(daemon, default_runtime=_BUILDKITS, ours=frozenset())
    calls = _lacking(own, _BUILTIN, when)
    if not calls or (daemon.local and _covered()):
        return ""
    covers = "a link to the wrapper as the first runc there covers them (docs/docker.md)"
    return f"BuildKit runs its steps by the runc on dockerd's PATH, without {calls}; {covers}"


def _lacking(daemon: Daemon, request: Request, when: When) -> str:
    """Return the calls that a container would need and that only an option could give it."""
    choice = choose(replace(daemon, runtimes=frozenset()), request, when)
    return ", ".join(choice.calls) if choice.uncovered or choice.action != "nothing" else ""


def _is_buildkits(real: str, command: Sequence[str]) -> bool:
    """Tell which builder's help a ``docker build`` shows: BuildKit's has a progress bar."""
    done = subprocess.run(
        [real, *command, "--help"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_HELP_SECONDS,
    )
    return "--progress" in done.stdout


def _covered() -> bool:
    """Tell whether the wrapper is the runc of every dockerd of this host that sees our files."""
    from shim.engines.docker import dockerd

    found = [each for each in dockerd.processes() if dockerd.own_view(each)]
    return bool(found) and all(map(dockerd.builds_by_us, found))
