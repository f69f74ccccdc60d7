"""The smallest edit that lets a profile allow the calls it has never heard of."""

from collections.abc import Collection, Iterable, Mapping
from copy import copy
from typing import Literal, NamedTuple, get_args

from shim.catalog import Syscall
from shim.profile import evaluate as core
from shim.profile.docker import ARCHITECTURE
from shim.profile.document import DOCKER, Document, Format, seccomp_of
from shim.profile.enosys_edit import UNNAMED, Refusals, refusals
from shim.profile.enosys_line import ENOSYS, NOBODY, Preserved, preserve

# When a call that the kernel makes processes issue is worth allowing; docs/reference.md tells.
When = Literal["needed", "present", "always"]
WHEN: tuple[When, ...] = get_args(When)
_WORTHWHILE = {"present": ("filtered", "exempt"), "needed": ("filtered",)}

# Verdicts of what lacks the call: the native architecture is filtered, listed or not.
_LACKING = ("denied-by-default", "conditional", "no-x86-64")

_NOT_HERE = {
    "absent": "the kernel here does not have it",
    "exempt": "the kernel here lets it pass any filter",
    "unknown": "whether the kernel here has it could not be told",
}
_HINT = {"exempt": " (--when present adds it)", "unknown": " (--when always adds it)"}


def worthwhile(state: str, when: str) -> bool:
    """Tell whether a call is worth allowing that the kernel treats as ``state`` says."""
    return when == "always" or state in _WORTHWHILE[when]


class TreeEdit(NamedTuple):
    """One change of a profile's tree, as in JSON Patch (RFC 6902): ``op`` is add or remove.

    Each pointer is that of the tree after the edits before it. ``value`` is what an add inserts.
    """

    op: str
    pointer: str
    value: object
    syscalls: tuple[str, ...]
    reason: str


class Finding(NamedTuple):
    """What became of one call: its verdict before, whether the edits change it, and why (not).

    The verdict ``unnamed`` is that of a call that is answered with ENOSYS, and stays refused.
    """

    syscall: str
    verdict: str
    changed: bool
    reason: str


def plan(
    document: Document,
    calls: Iterable[Syscall],
    states: Mapping[str, str],
    when: str = "present",
    override_deny: bool = False,
    line: str = NOBODY,
    enosys: Iterable[str] = (),
) -> tuple[list[TreeEdit], list[Finding]]:
    """Return the edits that allow ``calls``, and for every call what was found.

    With ``line`` (``shim.profile.enosys_line``) they also keep what runc answers to other calls.
    With ``enosys`` (``shim.profile.enosys_edit``) calls that no rule names get ENOSYS, not EPERM.

    ``states`` are the kernel's by name (absent, filtered, exempt, unknown); they decide over calls
    of the class kernel-injected unless ``when`` is ``always``. Programs' calls are added
    whatever the kernel: they are asked for by name, and nothing probes for them.
    """
    form = document.format
    findings: list[Finding] = []
    denied: list[str] = []
    calls = list(calls)
    injected = {call.name for call in calls if call.kind == "kernel-injected"}
    for call in calls:
        verdict, reason = _verdict(document.tree, form, call.name)
        changed = verdict in _LACKING
        if verdict == "explicit-deny" or _by_arguments(document, call.name, verdict):
            changed = override_deny
            reason += "" if override_deny else " (--override-deny overrules it)"
        elsewhere = _not_here(call, states, when) if changed else ""
        if elsewhere:
            changed, reason = False, elsewhere
        elif verdict == "explicit-deny" and changed:
            denied.append(call.name)
        findings.append(Finding(call.name, verdict, changed, reason))
    edits = _undenied(document, denied)
    tree = amended(document.tree, edits)
    lacking = [
        finding.syscall
        for finding in findings
        if finding.changed and _verdict(tree, form, finding.syscall)[0] in _LACKING
    ]
    refused = refusals(document, enosys, line)
    refused = refused._replace(names=tuple(n for n in refused.names if n not in lacking))
    added = [*lacking, *refused.names]
    findings += _refused(refused)
    if added:
        everywhere = form is DOCKER and not injected.issuperset(added)
        other = preserve(seccomp_of(tree, form) or {}, form, added, line, everywhere)
        more = []
        if other.names:
            more.append(_preserving(tree, form, other, lacking or added[:1], everywhere))
        if refused.names:
            more.append(_refusing(amended(tree, more), form, refused))
        # In Docker's format what the kernel injects on x86-64 is a rule for that alone.
        kinds = [[name for name in lacking if (name in injected) == kind] for kind in (True, False)]
        for names in filter(None, kinds if everywhere else [lacking]):
            here = everywhere and injected.isdisjoint(names)
            more.append(_added(amended(tree, more), form, names, findings, here))
        edits += more
        findings = _with_notes(findings, other)
    return edits, findings


def amended(tree: dict[str, object], edits: Iterable[TreeEdit]) -> dict[str, object]:
    """Return a copy of ``tree`` with ``edits`` made in it; what they do not touch is shared."""
    tree = dict(tree)
    for edit in edits:
        *path, last = edit.pointer.split("/")[1:]
        where: object = tree
        for key in path:
            inner: object
            if isinstance(where, list):
                inner = where[int(key)] = copy(where[int(key)])
            else:
                inner = where[key] = copy(where[key])  # type: ignore[index]
            where = inner
        if isinstance(where, dict):
            where[last] = edit.value
        elif isinstance(where, list) and edit.op == "add":
            where.insert(int(last), edit.value)
        elif isinstance(where, list):
            del where[int(last)]
    return tree


def _verdict(tree: dict[str, object], form: Format, name: str) -> tuple[str, str]:
    seccomp = seccomp_of(tree, form)
    return ("unconfined", "it has no profile") if seccomp is None else form.evaluate(seccomp, name)


def _by_arguments(document: Document, name: str, verdict: str) -> bool:
    """Tell whether the profile allows a call for certain arguments: to all others it is denied."""
    return verdict == "conditional" and any(
        rule.get("args") and name in document.format.names_of(rule, "")
        for rule in core.rules(document.seccomp or {})
    )


def _not_here(call: Syscall, states: Mapping[str, str], when: str) -> str:
    """Say why the kernel here does not call for ``call``; empty: it does, or is not asked."""
    state = states.get(call.name, "unknown")
    if call.kind != "kernel-injected" or worthwhile(state, when):
        return ""
    return _NOT_HERE.get(state, _NOT_HERE["unknown"]) + _HINT.get(state, "")


def _undenied(document: Document, names: Collection[str]) -> list[TreeEdit]:
    """Take ``names`` out of every rule that can deny them, last place first."""
    edits: list[TreeEdit] = []
    base = document.format.pointer
    syscalls = core.rules(document.seccomp or {})
    for index, rule in reversed(list(enumerate(syscalls))):
        pointer = f"/syscalls/{index}"
        action = core.action_of(rule, "action", pointer)
        listed = document.format.names_of(rule, pointer)
        hits = [
            place
            for place, word in enumerate(listed)
            if any(core.denies({}, [word], name) for name in names)
        ]
        if not hits or action not in core.DENYING:
            continue
        if document.format.applies(rule, pointer) == core.NEVER:
            continue
        taken = tuple(dict.fromkeys(listed[place] for place in hits))
        reason = f"overrules the explicit deny of {', '.join(taken)}"
        if len(hits) == len(listed):
            edits.append(TreeEdit("remove", base + pointer, None, taken, reason))
            continue
        for place in reversed(hits):
            at = f"{base}{pointer}/names/{place}"
            edits.append(TreeEdit("remove", at, None, (listed[place],), reason))
    return edits


def _refused(refused: Refusals) -> list[Finding]:
    """Tell of every call that gets ENOSYS, and of those that were asked for and do not."""
    changed = [Finding(name, UNNAMED, True, refused.reason) for name in refused.names]
    return changed + [Finding(name, "left", False, reason) for name, reason in refused.left]


def _refusing(tree: dict[str, object], form: Format, refused: Refusals) -> TreeEdit:
    """Make the rule by which calls that no rule names get ENOSYS, on every architecture."""
    rule = _enosys(refused.names)
    reason = f"ENOSYS, not EPERM: {refused.reason}"
    return _first(tree, form, rule, refused.names, reason, everywhere=True)


def _preserving(
    tree: dict[str, object], form: Format, other: Preserved, names: list[str], everywhere: bool
) -> TreeEdit:
    """Make the rule that keeps other calls as runc answers them."""
    reason = f"newer than this profile, so runc answers ENOSYS: kept with {', '.join(names)} in it"
    return _first(tree, form, _enosys(other.names), other.names, reason, everywhere)


def _enosys(names: tuple[str, ...]) -> dict[str, object]:
    return {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}


def _with_notes(findings: list[Finding], other: Preserved) -> list[Finding]:
    """Add to the first change what it means for other calls under runc, and under crun."""
    notes = []
    if other.names:
        notes.append(
            f"{_some(other.names)} get ENOSYS by name, as runc answers them: crun does then too"
        )
    if other.lost:
        notes.append(
            f"what runc answers to {_some(other.lost)} changes between ENOSYS and the default "
            "action, in some containers or on another architecture than x86-64: no rule can keep "
            "it, the runtime wrapper does"
        )
    first = next((place for place, each in enumerate(findings) if each.changed), -1)
    if first < 0 or not notes:
        return findings
    noted = findings[first]._replace(reason="; ".join([findings[first].reason, *notes]))
    return [*findings[:first], noted, *findings[first + 1 :]]


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _added(
    tree: dict[str, object],
    form: Format,
    names: list[str],
    findings: list[Finding],
    everywhere: bool,
) -> TreeEdit:
    """Make the one rule that allows ``names``."""
    rule: dict[str, object] = {"names": names, "action": "SCMP_ACT_ALLOW"}
    reasons = dict.fromkeys(finding.reason for finding in findings if finding.syscall in names)
    reason = "; ".join(reasons)
    return _first(tree, form, rule, tuple(names), reason, everywhere)


def _first(
    tree: dict[str, object],
    form: Format,
    rule: dict[str, object],
    names: tuple[str, ...],
    reason: str,
    everywhere: bool,
) -> TreeEdit:
    """Put a rule of ours in front of the others, in Docker's format for x86-64 or everywhere."""
    if form is DOCKER:
        rule["comment"] = "Added by seccomp-shim: newer than this profile"
        rule |= {} if everywhere else {"includes": {"arches": [ARCHITECTURE]}}
    pointer = f"{form.pointer}/syscalls"
    syscalls = (seccomp_of(tree, form) or {}).get("syscalls")
    if isinstance(syscalls, list):
        # First, not last: behind the last rule the new one would put a comma on a line that is not
        # its own. The order is free, for no rule before or behind decides these calls for good.
        return TreeEdit("add", f"{pointer}/0", rule, names, reason)
    return TreeEdit("add", pointer, [rule], names, reason)
