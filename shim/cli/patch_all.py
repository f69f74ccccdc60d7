"""The verb patch with --all: every profile of the host that needs it."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from shim.errors import ShimError, counted, printable
from shim.profile.enosys_edit import UNNAMED

if TYPE_CHECKING:
    from shim.catalog import Syscall
    from shim.discovery.find import ProfileFile, Survey
    from shim.discovery.profile_state import PatchOptions
    from shim.profile.edit import Finding
    from shim.transaction.plan import Plan

_LEFT = "leave alone"


def run(args: argparse.Namespace, calls: "Sequence[Syscall]", states: Mapping[str, str]) -> int:
    """Plan, show the plan, ask, change; 0 done, 1 see the help of patch, 2 error."""
    from shim.cli.find import problems, root
    from shim.cli.output import agreed
    from shim.cli.transaction import carry_out, settled
    from shim.discovery.find import survey
    from shim.discovery.patching import patching
    from shim.discovery.profile_state import PatchOptions
    from shim.host.effect import effects_here
    from shim.transaction import store as state

    if "-" in args.files:
        raise ShimError("standard input is not one of many files", subject="-")
    effects = effects_here(calls, args.runtime) if args.root == "/" else {}
    options = PatchOptions(
        calls, states, args.when, args.override_deny, args.line, args.enosys, effects
    )
    extra = args.extra_path
    found = survey(
        root(args.root),
        args.files or None,
        options,
        extra=extra,
        homes=args.homes,
        packaged=args.force,
    )
    plan = patching(found, effects)
    _show(args, found, plan, options)
    bad = problems(found, [*args.files, *extra], "patch")
    if args.check or args.diff or args.json:
        return max(bad, 1 if args.check and plan.changes else 0)
    if not plan.changes:
        return bad
    if not agreed(f"Change {counted(len(plan.changes), 'file')}?", yes=args.yes):
        return 1
    with state.opened(args.state or state.directory()) as opened:
        settled(opened, "patch")
        return max(bad, carry_out(plan, opened, "patch"))


def _show(args: argparse.Namespace, found: "Survey", plan: "Plan", options: "PatchOptions") -> None:
    """Show what would become of every file; with --diff the changes themselves."""
    from shim.cli.find import row
    from shim.cli.output import table
    from shim.host.effect import NOTHING_KNOWN, idle, next_steps
    from shim.host.libseccomp import about_unknown
    from shim.transaction.store import NOTHING

    planned = {change.path for change in plan.changes}
    shown = {file.shown for file in found.files if file.real in planned}
    if args.json:
        for each in found.found:
            names = [one.syscall for one in each.findings if one.changed and each.file in shown]
            document = {"file": each.file, "profile": each.profile or None, "state": each.state}
            effects = {name: options.effects.get(name, NOTHING_KNOWN).word for name in names}
            more = {"effects": effects, "reason": each.reason, "unknown_names": each.unknown}
            print(json.dumps({**document, "adds": names, **more}))
        for file in found.files:
            if file.before == NOTHING:
                adds, why = _added(file), _why_made(file, options)
                effects = {name: options.effects.get(name, NOTHING_KNOWN).word for name in adds}
                about = {"file": file.shown, "profile": None, "state": "not there", "adds": adds}
                more = {"effects": effects, "reason": why, "unknown_names": []}
                print(json.dumps({**about, **more}))
        return
    if args.diff:
        _diff(found, planned)
    rows = []
    for each in found.found:
        if each.format == "systemd":
            continue
        name, form, state, *_ = row(each)
        names = [one.syscall for one in each.findings if one.changed]
        changes = each.file in shown and names
        will = _will(each.findings) if changes else _LEFT
        others = (one.reason for one in each.findings if not one.changed)
        allowed = each.state in ("allows", "no effect")
        why = each.reason if each.kept or allowed else next(others, each.reason)
        notes = idle(names, options.effects) if changes else [why]
        notes.append(about_unknown(each.unknown))
        rows.append((name, form, state, will, "; ".join(filter(None, notes))))
    rows += [
        (
            each.shown,
            "",
            "not there",
            f"make, with {', '.join(_added(each))}",
            _why_made(each, options),
        )
        for each in found.files
        if each.before == NOTHING
    ]
    summary = f"{len(plan.changes)} of {counted(len(found.files), 'file')} would change"
    if args.diff:
        for name, _, _, will, why in rows:
            if why:
                _say(f"{name}: {'is left alone: ' if will == _LEFT else ''}{why}")
        _say(summary)
    else:
        if rows:
            print(table(("PROFILE", "FORMAT", "STATE", "PLAN", "WHY"), rows), end="")
        print(summary)
        sys.stdout.flush()
    listed = {
        one.syscall
        for each in found.found
        for one in each.findings
        if one.changed or one.verdict == "allows"
    }
    _say(*next_steps([call for call in options.calls if call.name in listed], options.effects))


def _say(*lines: str) -> None:
    for line in lines:
        print(f"seccomp-shim patch: {printable(line)}", file=sys.stderr)


def _will(findings: "Sequence[Finding]") -> str:
    """Say what a profile gets."""
    changed = [one for one in findings if one.changed]
    allowed = [one.syscall for one in changed if one.verdict != UNNAMED]
    refused = len(changed) - len(allowed)
    adds = f"add {', '.join(allowed)}" if allowed else ""
    return "; ".join(filter(None, (adds, f"ENOSYS for {counted(refused, 'call')}" * bool(refused))))


def _added(file: "ProfileFile") -> list[str]:
    return [one.syscall for each in file.verdict.profiles for one in each.findings if one.changed]


def _why_made(file: "ProfileFile", options: "PatchOptions") -> str:
    from shim.host.effect import idle

    return "; ".join(
        ["is read instead of the package's file", *idle(_added(file), options.effects)]
    )


def _diff(found: "Survey", planned: set[str]) -> None:
    from shim.cli.output import write_diff
    from shim.profile.diff import unified
    from shim.transaction.commit import Change
    from shim.transaction.plan import text_now

    for file in found.files:
        before = text_now(Change(file.real, file.before, "")) if file.real in planned else None
        if before is not None and file.verdict.after is not None:
            diff = unified(before, file.verdict.after.decode(), printable(file.shown))
            write_diff(diff)
    sys.stdout.flush()
