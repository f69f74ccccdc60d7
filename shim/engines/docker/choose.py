"""Decide what one container of a Docker daemon needs: the registered runtime, a profile, nothing.

Pure: it is told all that is known of the daemon and all that the user asked for. It never guesses:
where a fact is missing, the container stays as it was asked for, and the reason says which.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from shim import catalog
from shim.errors import ShimError
from shim.host.runtimes import knows
from shim.profile.docker_releases import parse
from shim.profile.document import CONFIG, Document, read
from shim.profile.edit import WHEN, Finding, When, amended, plan, worthwhile
from shim.profile.enosys_edit import UNNAMED, refusals
from shim.profile.enosys_line import LISTED

RUNTIME = "seccomp-shim"
_UNNAMED = "calls that no rule names"
_INSTALL = "`seccomp-shim install docker` on its host covers it"


@dataclass(frozen=True, slots=True)
class Daemon:
    """What is known of a Docker daemon; ``shim.engines.docker.daemon_facts`` finds it out.

    ``states`` holds, for each call that may need help, what the daemon's kernel does with it
    (absent, filtered, exempt, unknown); ``libseccomp`` is the release that the default runtime
    uses, None if that cannot be told from here. ``builtin`` is the profile that this version has
    built in, ``configured`` what its setting ``seccomp-profile`` names; both None where unknown,
    and then the reasons say why. ``ours`` are the runtimes that are the wrapper. ``confines`` is
    false where containers get no filter by default. ``local``: it sees the files that we see.
    ``unknown_calls``: the settings want calls that no rule names to get ENOSYS.
    """

    version: str
    states: Mapping[str, str]
    machine: str = "x86_64"
    seccomp: bool = True
    confines: bool = True
    runtimes: frozenset[str] = frozenset({"runc"})
    ours: frozenset[str] = frozenset({RUNTIME})
    default_runtime: str = "runc"
    libseccomp: str | None = None
    builtin: Document | None = None
    builtin_reason: str = ""
    configured: str = ""
    configured_profile: Document | None = None
    local: bool = False
    unknown_calls: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked of a container.

    ``security_opt`` are the options as the daemon's API takes them, in order: the value of
    ``seccomp=`` is ``unconfined``, ``builtin`` or a profile's text, never a path. ``runtime`` is
    empty where the user named none.
    """

    security_opt: Sequence[str] = ()
    privileged: bool = False
    runtime: str = ""
    profile_name: str = field(default="the profile asked for")


class Choice(NamedTuple):
    """What to add to a container, and one line that says why.

    ``action`` ``runtime``: name ``value`` as its runtime. ``profile``: give ``seccomp=`` with
    ``value``, a profile's text, as its last security option. ``nothing``: leave it as it is.
    ``uncovered`` tells whether an adjustment was called for and cannot be made here.
    """

    action: Literal["runtime", "profile", "nothing"]
    value: str
    reason: str
    calls: tuple[str, ...] = ()
    uncovered: bool = False

    def logged(self) -> dict[str, object]:
        """Return what the audit log says of what is asked of the daemon."""
        mechanism = "name" if self.action == "profile" else "runtime"
        return {"mechanism": mechanism, "syscall": ",".join(self.calls)}


def checked(when: str) -> When:
    """Return ``when`` where it is a word for that. ShimError: it is none."""
    for each in WHEN:
        if when == each:
            return each
    raise ShimError(f"must be one of {', '.join(WHEN)}, not {when!r}", subject="when")


def choose(daemon: Daemon, request: Request, when: When = "needed") -> Choice:
    """Decide for one container; docs/reference.md tells what ``when`` means."""
    if reason := _unfiltered(daemon, request):
        return Choice("nothing", "", reason)
    if request.runtime in daemon.ours:
        return Choice(
            "nothing", "", f"the runtime {request.runtime} was asked for by name, and is ours"
        )
    if request.runtime:
        return _foreign(daemon, request.runtime, when)
    if daemon.default_runtime in daemon.ours:
        return Choice("nothing", "", f"the daemon's default runtime is {RUNTIME} already")
    registered = RUNTIME in daemon.runtimes
    calls, reason = _worth_allowing(daemon.states, when, its_own_look=registered)
    if not calls and not daemon.unknown_calls:
        return Choice("nothing", "", reason)
    try:
        document, unknown = _profile(daemon, request)
    except ShimError as error:
        document, unknown = None, str(error)
    if document is None and not registered:
        return Choice("nothing", "", f"{unknown}; {_INSTALL}", calls, uncovered=True)
    if document is None:
        return Choice("runtime", RUNTIME, f"it looks for itself: {unknown}", calls)
    if document.format is CONFIG:
        empty = f"{document.where} is a whole config.json, to Docker a profile without any rule"
        return Choice("nothing", "", f"{empty}: it has no filter")
    return _with_profile(daemon, document, calls, registered=registered)


def _foreign(daemon: Daemon, runtime: str, when: When) -> Choice:
    """Decide for a container by a runtime that was asked for by name, and is not ours."""
    named = f"the runtime {runtime} was asked for by name"
    calls, reason = _worth_allowing(daemon.states, when, its_own_look=False)
    if not calls:
        return Choice("nothing", "", f"{named}; {reason}")
    covers = f"`seccomp-shim install docker --runtime {runtime}` on its host covers it"
    return Choice("nothing", "", f"{named}, which is not ours; {covers}", calls, uncovered=True)


def seccomp_option(security_opt: Sequence[str]) -> str | None:
    """Return the value of the seccomp option that counts, the last one; None: there is none."""
    value = None
    for option in security_opt:
        # The colon is the daemon's deprecated spelling: daemon_unix.go parseSecurityOpt().
        key, _, rest = option.partition("=" if "=" in option else ":")
        if key == "seccomp":
            value = rest
    return value


def _unfiltered(daemon: Daemon, request: Request) -> str:
    """Say why no filter will be there, or none that we know of; empty: there will be one."""
    asked = seccomp_option(request.security_opt)
    if daemon.machine != "x86_64":
        return f"the daemon runs on {daemon.machine}: these calls are x86-64's"
    if not daemon.seccomp:
        return "the daemon runs without seccomp"
    if asked == "unconfined":
        return "seccomp=unconfined: it has no filter"
    if request.privileged and not (asked and _confines_privileged(daemon.version)):
        return "privileged: it has no filter"
    if not asked and not daemon.confines:
        return "the daemon's default is seccomp=unconfined"
    return ""


def _confines_privileged(version: str) -> bool:
    """Tell whether a profile that is named holds for privileged containers, too.

    Since moby 27.0.0: moby/moby#47500 (896de6d426).
    """
    release, _ = parse(version)
    return release is not None and release >= (27, 0, 0)


def _worth_allowing(
    states: Mapping[str, str], when: When, *, its_own_look: bool
) -> tuple[tuple[str, ...], str]:
    """Return the calls that are worth allowing, or why there are none.

    A registered runtime looks at its own kernel: there, ``unknown`` is for it to find out.
    """
    calls = tuple(
        name
        for name, state in states.items()
        if worthwhile(state, when) or (its_own_look and state == "unknown")
    )
    if calls:
        return calls, ""
    if "unknown" in states.values():
        return (), "what the daemon's kernel does cannot be told from here (when: always adds it)"
    found = ", ".join(f"{name} {state}" for name, state in states.items())
    return (), f"the daemon's kernel does not call for it: {found}"


def _profile(daemon: Daemon, request: Request) -> tuple[Document | None, str]:
    """Return the profile that the container would get, or why that is unknown."""
    asked = seccomp_option(request.security_opt)
    if asked and asked != "builtin":
        return read(asked.encode(), request.profile_name), ""
    if not asked and daemon.configured:
        reason = f"the daemon's own profile {daemon.configured} cannot be read from here"
        return daemon.configured_profile, reason
    return daemon.builtin, daemon.builtin_reason


def _with_profile(
    daemon: Daemon, document: Document, calls: tuple[str, ...], *, registered: bool
) -> Choice:
    known = catalog.load()
    named = [known[name] for name in calls if name in known]
    nameless = tuple(name for name in calls if name not in known)
    _, findings = plan(document, named, {}, "always")
    settled = [f for f in findings if not f.changed and f.verdict != "allows"]
    unheard = tuple(
        finding.syscall
        for finding in findings
        if (finding.changed or finding.verdict == "allows")
        and not knows(daemon.libseccomp, known[finding.syscall].libseccomp)
    )
    lacking = (*nameless, *(f.syscall for f in findings if f.changed), *unheard)
    lacking = tuple(dict.fromkeys(lacking))
    refused = refusals(document, (UNNAMED,), LISTED).names if daemon.unknown_calls else ()
    if not lacking and not refused:
        reason = _settled(settled, findings) or "a rule names each call that it would refuse"
        return Choice("nothing", "", reason)
    if registered:
        return Choice("runtime", RUNTIME, f"for {', '.join(lacking) or _UNNAMED}", lacking)
    helped = tuple(f.syscall for f in findings if f.changed and f.syscall not in unheard)
    if helped or refused:
        enosys = (UNNAMED,) if refused else ()
        wanted = [known[name] for name in helped]
        edits, _ = plan(document, wanted, {}, "always", line=LISTED, enosys=enosys)
        text = json.dumps(amended(document.tree, edits), separators=(",", ":"))
        told = [f"{', '.join(helped)} allowed by name"] if helped else []
        told += [f"ENOSYS for {_UNNAMED}"] if refused else []
        reason = " and ".join(told)
        if nameless:
            reason += f"; no profile can name {nameless[0]}: {_INSTALL}"
        return Choice("profile", text, reason, helped, uncovered=bool(lacking) and not helped)
    if nameless:
        reason = f"no profile can name {nameless[0]}"
    elif daemon.libseccomp:
        reason = f"the runtime's libseccomp {daemon.libseccomp} does not know {lacking[0]}"
    else:
        reason = "which names the runtime's libseccomp knows cannot be told from here"
    return Choice("nothing", "", f"{reason}; {_INSTALL}", lacking, uncovered=True)


def _settled(settled: list[Finding], findings: list[Finding]) -> str:
    told = settled or findings
    return "; ".join(dict.fromkeys(f"{f.syscall} is {f.reason}" for f in told))
