"""The verb patch with --unit: a drop-in for a systemd unit whose list lacks the calls."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from shim.errors import ShimError, printable

if TYPE_CHECKING:
    from shim.catalog import Syscall
    from shim.discovery.root import Root
    from shim.discovery.unitfilter import UnitFilter
    from shim.profile.edit import Finding

_HELPS = (
    "a libseccomp that knows the name is what helps (2.5.6 for uretprobe), or a kernel that lets "
    "it pass any filter (6.14, 6.13.3, 6.12.14)"
)


def run(args: argparse.Namespace, calls: "Sequence[Syscall]", states: Mapping[str, str]) -> int:
    """Write the drop-in, or show it; 0 done or nothing to do, 1 --check would change, 2 error."""
    from shim.cli.output import write_diff
    from shim.discovery import unitfilter
    from shim.discovery.root import Root
    from shim.profile.diff import unified

    root = Root(args.root or "/")
    found = unitfilter.read(root, args.unit)
    path = unitfilter.drop_in(found.unit)
    findings, notes = _findings(found, calls, states, args.when)
    names = [each.syscall for each in findings if each.changed]
    before = _there(root, path)
    after = unitfilter.content(before, names) if names else before
    made = ""
    if names and not (args.diff or args.check or args.json):
        made = _write(args, root, path, before, after, findings)
    if args.json:
        document = {"unit": found.unit, "drop_in": path, "changed": bool(names), "notes": notes}
        print(json.dumps({**document, "calls": [each._asdict() for each in findings]}, indent=2))
    else:
        if args.diff and names:
            write_diff(unified(before.decode("utf-8", "replace"), after.decode(), path))
            sys.stdout.flush()
        for each in findings:
            what = "would be added" if args.diff or args.check else "added"
            told = f"{what} in {path}" if each.changed else "is left alone"
            _say(f"{found.unit}: {each.syscall} {told}: {each.reason}")
        _say(*notes)
        if made:
            _say(f"run {made}: seccomp-shim rollback --id {int(made.partition('-')[0])} undoes it")
            _say(f"then: systemctl daemon-reload && systemctl restart {found.unit}")
    return int(args.check and bool(names))


def _findings(
    found: "UnitFilter", calls: "Sequence[Syscall]", states: Mapping[str, str], when: str
) -> "tuple[list[Finding], list[str]]":
    from shim.discovery.unitfilter import groups_here
    from shim.host.libseccomp import system_libseccomp
    from shim.profile.edit import Finding, worthwhile

    version, known = system_libseccomp([call.name for call in calls])
    sets = groups_here()
    findings, dropped = [], []
    for call in calls:
        name = call.name
        if not found.entries:
            findings.append(Finding(name, "unconfined", False, "the unit has no SystemCallFilter="))
            continue
        verdict, reason = found.verdict(name, sets)
        if not found.allows and verdict == "denied-by-default":
            verdict, reason = "default-allows", f"{found.place()} denies what it lists, not this"
        state = states.get(name, "unknown")
        lacking = verdict == "denied-by-default"
        if verdict != "explicit-deny" and found.allows and not known[name]:
            dropped.append(name)
            reason = f"{reason}, and libseccomp {version} here drops the name: no effect"
            lacking = False
        elif lacking and call.kind == "kernel-injected" and not worthwhile(state, when):
            reason, lacking = f"the kernel here has it {state} (--when always adds it)", False
        findings.append(Finding(name, verdict, lacking, reason))
    return findings, [f"{', '.join(dropped)}: {_HELPS}"] if dropped else []


def _there(root: "Root", path: str) -> bytes:
    try:
        return root.read(path)
    except FileNotFoundError:
        return b""


def _write(
    args: argparse.Namespace,
    root: "Root",
    path: str,
    before: bytes,
    after: bytes,
    findings: "list[Finding]",
) -> str:
    """Make the drop-in in one run of its own; return the run's id. ShimError: it is not made."""
    from shim.cli.transaction import settled
    from shim.host.untrusted_files import secure
    from shim.transaction import plan as change
    from shim.transaction import store

    plan = change.empty("patch")
    secure(os.path.dirname(f"{root.top.rstrip('/')}{path}"))
    real = root.real(path)
    change.add(plan, real, store.checksum(before) if before else store.NOTHING, after, findings)
    with store.opened(args.state or store.directory(), store.PATIENCE) as opened:
        settled(opened, "patch")
        outcome = change.run(plan, opened, lambda _: None)
    for each in outcome.results:
        if each.what != "done":
            raise ShimError(each.reason, subject=each.change.path)
    return outcome.run


def _say(*lines: str) -> None:
    for line in lines:
        print(f"seccomp-shim patch: {printable(line)}", file=sys.stderr)
