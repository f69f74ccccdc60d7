"""What the verb patch says of a file: the text or the diff, the reasons, or JSON."""

import argparse
import sys
from typing import TYPE_CHECKING, NamedTuple

from shim.cli.table import write_diff
from shim.errors import printable

if TYPE_CHECKING:
    from shim.profile.contents import Contents
    from shim.profile.patched import Changed, Patched


class Patch(NamedTuple):
    """One file read and planned, with its bytes before and after."""

    file: str
    contents: "Contents"
    patched: "Patched"
    before: bytes
    after: bytes


def show(patch: Patch, args: argparse.Namespace) -> None:
    """Print what was asked for, and the reasons for a human."""
    from shim.profile.diff import unified

    if args.diff:
        diff = unified(patch.contents.text, patch.patched.text, printable(patch.file))
        write_diff(diff)
    elif not (args.in_place or args.check):
        sys.stdout.buffer.write(patch.after)
    sys.stdout.flush()
    done = "would be allowed, is" if args.diff or args.check else "is now allowed, was"
    for profile in patch.patched.profiles:
        where = printable(profile.part.document.where)
        for finding in profile.findings:
            became = done if finding.changed else "is left alone:"
            print(f"{where}: {finding.syscall} {became} {finding.reason}", file=sys.stderr)


def report(patch: Patch) -> dict[str, object]:
    """Describe a file; if it is one profile, without a level for that."""
    document = {"file": patch.file, "changed": patch.patched.changed}
    profiles = [_report_of(profile) for profile in patch.patched.profiles]
    if not patch.patched.profiles[0].part.name:
        return {**document, **profiles[0]}
    return {**document, "profiles": profiles}


def _report_of(profile: "Changed") -> dict[str, object]:
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
        "calls": [finding._asdict() for finding in profile.findings],
    }
