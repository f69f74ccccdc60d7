"""What a profile does to the calls that kernels inject, in one word."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from shim.catalog import Syscall
from shim.errors import ShimError, one_line
from shim.host.effect import NOTHING_KNOWN, Effect, idle
from shim.host.libseccomp import unknown
from shim.profile.contents import read
from shim.profile.document import names
from shim.profile.edit import Finding
from shim.profile.edit_contents import Changed, patch, planned
from shim.profile.enosys_line import LISTED

# What "allows" is where no runtime knows any of the names.
_DROPPED = "dropped"
# From the verdicts of shim.profile.evaluate. Where a profile treats its calls differently, the
# first of these that is met names it.
STATES = {
    "denied-by-default": "denies by default",
    "conditional": "denies by default",
    "no-x86-64": "denies by default",
    "explicit-deny": "explicit deny",
    "supervised": "supervised",
    "unconfined": "filters nothing",
    _DROPPED: "no effect",
    "default-allows": "allows",
    "allows": "allows",
}


class PatchOptions(NamedTuple):
    """What ``patch`` is told: calls, the kernel's states, when, whether to overrule denials.

    ``line`` is whose ENOSYS line is kept, as ``shim.profile.enosys_line`` has it; ``enosys`` what
    calls get ENOSYS (``shim.profile.enosys_edit``), which tells nothing of a state; ``effects``
    what each call's name does under the runtimes of the host, empty where that is not known.
    """

    calls: Sequence[Syscall]
    states: Mapping[str, str]
    when: str = "present"
    override_deny: bool = False
    line: str = LISTED
    enosys: tuple[str, ...] = ()
    effects: Mapping[str, Effect] = {}


class ProfileState(NamedTuple):
    """One profile of a file, what was found of each call, and its names that no kernel has."""

    profile: str
    format: str
    state: str
    reason: str
    findings: tuple[Finding, ...]
    unknown: tuple[str, ...]


class FileState(NamedTuple):
    """A file's content: its profiles, and what ``patch`` makes of it; None: nothing, or it cannot.

    ``error`` says why it cannot; a file without profiles is invalid.
    """

    profiles: tuple[ProfileState, ...]
    error: str
    after: bytes | None


def assess(data: bytes, where: str, options: PatchOptions) -> FileState:
    """Judge the content of a file, and plan what ``patch`` would do with it.

    An error begins with ``where``. Whatever is in the file, it is this file's error: a defect of
    ours that one file brings to light must not keep a host's other files from being looked at.
    """
    judged: tuple[ProfileState, ...] = ()
    try:
        contents = read(data, where)
        profiles = planned(contents, *options[:-1])
        judged = tuple(_judged(each, options) for each in profiles)
        patched = patch(contents, profiles)
    except ShimError as error:
        return FileState(judged, str(error), None)
    except Exception as error:
        return FileState(judged, f"{where}: {one_line(error)}", None)
    return FileState(judged, "", patched.text.encode() if patched.changed else None)


def _judged(changed: Changed, options: PatchOptions) -> ProfileState:
    part, findings = changed.part, changed.findings
    asked = {call.name for call in options.calls}
    verdicts = {each.syscall: each.verdict for each in findings if each.syscall in asked}
    by_name = [name for name, verdict in verdicts.items() if verdict == "allows"]
    if by_name and all(options.effects.get(n, NOTHING_KNOWN).word == "none" for n in by_name):
        verdicts |= dict.fromkeys(by_name, _DROPPED)
    worst = next(each for each in STATES if each in verdicts.values())
    named = [finding for finding in findings if verdicts.get(finding.syscall) == worst]
    reason = named[0].reason
    if len(named) < len(verdicts):
        reason = f"{', '.join(finding.syscall for finding in named)}: {reason}"
    if STATES[worst] in ("allows", "no effect"):
        reason = "; ".join([reason, *idle(by_name, options.effects)])
    form = part.document.format.name
    strange = unknown(names(part.document))
    return ProfileState(part.name, form, STATES[worst], reason, tuple(findings), strange)
