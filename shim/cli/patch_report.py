"""What the verb patch says of the files that it has read and planned."""

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from shim.errors import ShimError, counted

if TYPE_CHECKING:
    from shim.catalog import Syscall
    from shim.cli.patch import Patch
    from shim.host.effect import Effect
    from shim.profile.edit import Finding
    from shim.profile.edit_contents import Changed


def report(patch: "Patch", effects: "Mapping[str, Effect]") -> dict[str, object]:
    """Describe a file; if it is one profile, without a level for that."""
    document = {"file": patch.file, "changed": patch.patched.changed}
    profiles = [_report_of(profile, effects) for profile in patch.patched.profiles]
    if not patch.patched.profiles[0].part.name:
        return {**document, **profiles[0]}
    return {**document, "profiles": profiles}


def call_lines(
    profile: "Changed", effects: "Mapping[str, Effect]", later: bool, runtime: str
) -> Iterator[str]:
    """Say what becomes of each call; of those that get ENOSYS together, once."""
    from shim.profile.enosys_edit import UNNAMED

    refused = [each for each in profile.findings if each.verdict == UNNAMED]
    for each in profile.findings:
        if each.verdict != UNNAMED:
            yield _became(each, effects, later)
    if refused:
        names = [each.syscall for each in refused]
        will = "would get" if later else "get"
        listed = (
            f"{', '.join(names[:3])} and {len(names) - 3} more" if names[3:] else ", ".join(names)
        )
        yield f"{listed} {will} ENOSYS, not EPERM; they stay refused; {refused[0].reason}"
        yield from _still_refused(profile, names, runtime)


def _still_refused(profile: "Changed", names: list[str], runtime: str) -> Iterator[str]:
    """Say which of ``names`` keep their errno under a runtime here, as it will load the profile."""
    import os

    from shim.abi import SECCOMP_RET_ENOSYS
    from shim.bpf.outcomes import outcomes
    from shim.bpf.program import decode
    from shim.catalog.table import numbers
    from shim.cli.container_options import here
    from shim.cli.runtime_option import loader
    from shim.host.effect import runtimes
    from shim.profile.document import resolved
    from shim.profile.edit import amended
    from shim.profile.model import loaded, whole

    document = profile.part.document
    after = document._replace(tree=amended(document.tree, profile.edits))
    for path in [runtime] if runtime else [str(each["path"]) for each in runtimes()]:
        try:
            program = decode(whole(loaded(resolved(after, **here()), loader(path))))
        except ShimError:
            continue  # it starts no container with this profile, or does not tell what it is
        table = numbers()["x86_64"]
        kept = [n for n in names if outcomes(program, table[n]) != {SECCOMP_RET_ENOSYS}]
        if kept:
            yield (
                f"under {os.path.basename(path)} {counted(len(kept), 'of these call')} from "
                f"{kept[0]} on stay EPERM: its libseccomp does not know the names"
            )


def _effect(finding: "Finding", effects: "Mapping[str, Effect]") -> "Effect":
    from shim.host.effect import NOTHING_KNOWN

    return effects.get(finding.syscall, NOTHING_KNOWN)


def _became(finding: "Finding", effects: "Mapping[str, Effect]", later: bool) -> str:
    """Say what becomes of a call, or would; what no runtime here takes is not called allowed."""
    name = finding.syscall
    effect = _effect(finding, effects)
    if not finding.changed:
        idle = effect.text if finding.verdict == "allows" else ""
        return "; ".join(filter(None, (f"{name} is left alone: {finding.reason}", idle)))
    if effect.word == "none":
        rule = "a rule would be added" if later else "a rule was added"
        return f"{name}: {rule}, with {effect.text}; the call stays {finding.reason}"
    now = f"{name} {'would be' if later else 'is now'} allowed"
    was = f"{'is' if later else 'was'} {finding.reason}"
    return f"{now}, {effect.text}; it {was}" if effect.text else f"{now}, {was}"


def tell_next_steps(
    calls: "list[Syscall]", patches: "list[Patch]", effects: "Mapping[str, Effect]"
) -> None:
    """Say what helps where a runtime drops a name."""
    from shim.host.effect import next_steps

    listed = {
        finding.syscall
        for patch in patches
        for finding in patch.patched.findings
        if finding.changed or finding.verdict == "allows"
    }
    for step in next_steps([call for call in calls if call.name in listed], effects):
        print(f"seccomp-shim patch: {step}", file=sys.stderr)


def unknown(profile: "Changed") -> tuple[str, ...]:
    """Return the names in a profile that no kernel has a call for."""
    from shim.host import libseccomp
    from shim.profile.document import names

    return libseccomp.unknown(names(profile.part.document))


def _report_of(profile: "Changed", effects: "Mapping[str, Effect]") -> dict[str, object]:
    edits = []
    for edit in profile.edits:
        value = {} if edit.op == "remove" else {"value": edit.value}
        what: dict[str, object] = {"op": edit.op, "path": edit.pointer, **value}
        edits.append({**what, "syscalls": edit.syscalls, "reason": edit.reason})
    name = {"profile": profile.part.name} if profile.part.name else {}
    return {
        **name,
        "format": profile.part.document.format.name,
        "edits": edits,
        "calls": [
            {**finding._asdict(), "effect": _effect(finding, effects).word}
            for finding in profile.findings
        ],
        "unknown_names": unknown(profile),
    }
