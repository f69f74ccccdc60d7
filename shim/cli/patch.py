"""The verb patch: let profiles allow calls that are newer than they are."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from shim.cli import when_option
from shim.cli.find import extra_path
from shim.cli.output import write_diff
from shim.cli.runtime_option import line
from shim.errors import ShimError, printable

if TYPE_CHECKING:
    from shim.catalog import Syscall
    from shim.host.effect import Effect
    from shim.profile.contents import Contents
    from shim.profile.edit_contents import Patched

DESCRIPTION = """\
Add to seccomp profiles what a newer kernel makes processes call by itself
(uretprobe, uprobe), as one more rule. Everything else stays byte for byte.
Takes Docker profiles, OCI linux.seccomp, whole OCI config.json files, and YAML
with SeccompProfile resources or with JSON profiles inside, as ConfigMaps have.

A profile is left alone where it allows the call already, denies it by name,
leaves it to a supervisor, or filters nothing. What was done, or why not, is
said on standard error.

runc answers ENOSYS to calls newer than every name in a profile, and a new name
moves that line. So the calls in between get a rule that answers ENOSYS too."""

EPILOG = """\
A file that belongs to a package (dpkg and rpm tell, /etc aside) is left alone,
for the package's next version overwrites it; --all makes a copy that overrides
it where the engine reads one, else what does is told.

without --in-place, --diff, --check or --json the patched profile is printed
on standard output, unchanged if there was nothing to do.

examples:
  seccomp-shim patch --diff /etc/docker/seccomp.json
  seccomp-shim patch --in-place /etc/containers/*.json
  seccomp-shim patch --when always - < default.json > patched.json
  seccomp-shim patch --check --add mseal --add map_shadow_stack app.json
  seccomp-shim patch --enosys newer --diff old.json
  seccomp-shim patch --all --yes
  seccomp-shim patch --all --diff --root /mnt/image /srv/profiles

A name has an effect where the libseccomp of the runtime knows it; where those
here drop it, patch says so: "no effect", and the exit status is 0 all the same.
"effect" in the JSON is all, some or none of the runtimes here, or unknown.

exit statuses: 0 done or nothing to do, 1 --check found a profile that would
change (with --all also: the answer was no, a file is invalid or could not be
read, or one was skipped because somebody else has changed or locked it: run it
again), 2 error (with several files: the others are still done).
Changes made by --in-place and --all are one run: logged first (what cannot be
logged is not made), and rolled back by rollback FILE or rollback --last. A file
with several hard links gets a new inode: the other names keep the old content."""


class Patch(NamedTuple):
    """One file read and planned, with its bytes before and after."""

    file: str
    contents: "Contents"
    patched: "Patched"
    before: bytes
    after: bytes


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "patch",
        help="let profiles allow calls that are newer than they are",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="a profile; - is standard input; with --all all that is in this file or directory",
    )
    parser.add_argument(
        "-a",
        "--all",
        action="store_true",
        help="every profile that find finds, or that it finds at FILE: shows a plan, asks, changes "
        "all in one run that rollback undoes",
    )
    extra_path(parser)
    parser.add_argument(
        "--root", metavar="DIR", help="with --all or --unit: the host whose root directory is DIR"
    )
    parser.add_argument(
        "--homes", action="store_true", help="with --all: also in the home directories of users"
    )
    parser.add_argument(
        "--unit",
        metavar="NAME",
        help="add the calls to SystemCallFilter= of this systemd service, by a drop-in",
    )
    parser.add_argument("-y", "--yes", action="store_true", help="with --all: do not ask")
    parser.add_argument(
        "--state",
        metavar="DIR",
        help="with --all, -i or --unit: where backups and journals go",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-i", "--in-place", action="store_true", help="replace the files atomically")
    what.add_argument("--diff", action="store_true", help="show a unified diff, write nothing")
    what.add_argument(
        "--check", action="store_true", help="write nothing, exit 1 if a profile would change"
    )
    parser.add_argument("--json", action="store_true", help="print edits and reasons as JSON")
    when_option.add(parser)
    parser.add_argument(
        "--add",
        action="append",
        default=[],
        metavar="NAME",
        help="also allow this call that programs make, any of any kernel, whatever --when says; "
        "may be repeated",
    )
    parser.add_argument(
        "--enosys",
        action="append",
        default=[],
        metavar="newer|unnamed|NAME",
        help="answer calls with ENOSYS, not EPERM, so that programs fall back as on an older "
        "kernel; nothing is allowed. newer: those newer than all that the profile names; unnamed: "
        "these, and those since Linux 5.1 that it passes over; or one call that no rule names. "
        "Only where the default action is EPERM; may be repeated",
    )
    parser.add_argument(
        "--runtime",
        metavar="runc|crun|PATH",
        default="",
        help="the runtime whose answers to other calls are to stay, and for which the effect is "
        "told (default: runc before crun for the first, all that are here for the second)",
    )
    parser.add_argument(
        "--override-deny",
        action="store_true",
        help="allow also what a profile denies by name (the name is taken out of that rule), or "
        "allows with certain arguments only",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="with --all or --in-place: change also files that belong to a package of the "
        "distribution",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Patch every file; the exit status is the gravest of them."""
    from shim.host import cache
    from shim.host.effect import effects_here

    if args.json and args.diff:
        raise ShimError("--json and --diff cannot be printed together")
    args.line = line(args.runtime)
    args.enosys = _checked(args.enosys)
    if args.unit:
        return _unit(args)
    if args.all:
        from shim.cli import patch_all

        args.root = args.root or "/"
        states = {} if args.when == "always" else cache.states()
        return patch_all.run(args, _calls(args.add), states)
    if args.root or args.yes or args.homes or args.extra_path:
        raise ShimError("--root, --homes, --extra-path and --yes are for --all")
    if args.state and not args.in_place:
        raise ShimError("--state is for --all and --in-place")
    if args.force and not args.in_place:
        raise ShimError("--force is for --all and --in-place")
    if not args.files:
        raise ShimError("no file was named", hint="--all takes every profile of this host")
    written = not (args.diff or args.check or args.json)
    if written and not args.in_place and len(args.files) > 1:
        raise ShimError(
            "several files cannot go to one standard output",
            hint="add --in-place, --diff or --check",
        )
    if args.in_place and "-" in args.files:
        raise ShimError("standard input cannot be replaced in place", subject="-")
    if args.files.count("-") > 1:
        raise ShimError("standard input can be read once only", subject="-")
    calls = _calls(args.add)
    states = {} if args.when == "always" else cache.states()
    return _files(args, calls, states, effects_here(calls, args.runtime))


def _unit(args: argparse.Namespace) -> int:
    from shim.cli import patch_unit
    from shim.host import cache

    if args.all or args.files or args.enosys or args.in_place or args.override_deny:
        raise ShimError("--unit goes with --when, --add, --root, --state and what shows a change")
    states = {} if args.when == "always" else cache.states()
    return patch_unit.run(args, _calls(args.add), states)


def _files(
    args: argparse.Namespace,
    calls: "list[Syscall]",
    states: Mapping[str, str],
    effects: "Mapping[str, Effect]",
) -> int:
    """Patch the files that were named; one's failure stops no other."""
    from shim.cli import patch_report

    errors: dict[str, str] = {}
    patches: dict[str, Patch] = {}
    for file in args.files:
        try:
            patches[file] = _planned(file, calls, states, args)
        except (ShimError, OSError) as error:
            errors[file] = _explain(error, file)
            print(f"seccomp-shim patch: {errors[file]}", file=sys.stderr)
    made = ""
    if args.in_place:
        made, failed = _write(args, patches, effects)
        errors |= failed
    changed = False
    reports: list[dict[str, object]] = []
    for file in args.files:
        if file in errors:
            reports.append({"file": file, "error": errors[file]})
            continue
        changed = changed or patches[file].patched.changed
        if args.json:
            reports.append(patch_report.report(patches[file], effects))
        else:
            _show(patches[file], args, effects)
    if args.json:
        run_id = {"run": made} if made else {}
        document = {"when": args.when, "kernel": states, **run_id, "files": reports}
        print(json.dumps(document, indent=2))
    elif made:
        undo = f"seccomp-shim rollback --id {int(made.partition('-')[0])}"
        print(f"run {made}: {undo} undoes it", file=sys.stderr)
    if not args.json:
        patch_report.tell_next_steps(calls, list(patches.values()), effects)
    return 2 if errors else int(args.check and changed)


def _checked(words: list[str]) -> tuple[str, ...]:
    from shim.profile.enosys_edit import checked

    return checked(words)


def _calls(names: list[str]) -> "list[Syscall]":
    """Return the kernel-injected calls and those that the admin named."""
    from shim.catalog import every, kernel_injected

    injected, known = kernel_injected(), every()
    from difflib import get_close_matches

    for name in names:
        if name in injected:
            raise ShimError(
                "--add is for calls that programs make, not the kernel",
                subject=name,
                hint="this one needs no --add: --when says on which kernels it is added",
            )
        if name not in known:
            near = get_close_matches(name, known)
            hint = f"did you mean {' or '.join(near)}?" if near else ""
            raise ShimError("--add does not know this call", subject=name, hint=hint)
    return [*injected.values(), *(known[name] for name in dict.fromkeys(names))]


def _planned(
    file: str, calls: "list[Syscall]", states: Mapping[str, str], args: argparse.Namespace
) -> Patch:
    from shim import files
    from shim.profile.contents import read
    from shim.profile.document import MAX_BYTES
    from shim.profile.edit_contents import patch, planned

    if file == "-":
        before, where = sys.stdin.buffer.read(MAX_BYTES + 1), "standard input"
    else:
        before, where = files.read(file, MAX_BYTES), file
    contents = read(before, where)
    profiles = planned(
        contents, calls, states, args.when, args.override_deny, args.line, args.enosys
    )
    edited = patch(contents, profiles)
    return Patch(file, contents, edited, before, edited.text.encode())


def _write(
    args: argparse.Namespace, patches: Mapping[str, Patch], effects: "Mapping[str, Effect]"
) -> tuple[str, dict[str, str]]:
    """Replace the files in one run; return its id, and why files were not, by the given name.

    ShimError: nothing could be logged, and nothing was done.
    """
    from shim.cli.transaction import settled
    from shim.discovery.root import Root
    from shim.host.effect import together
    from shim.host.packages import overriding, owners, why_kept
    from shim.transaction import plan as change
    from shim.transaction import store

    plan = change.empty("patch", effects=effects)
    changed = [file for file, patch in patches.items() if patch.patched.changed]
    owned = {} if args.force else owners(map(os.path.realpath, changed))
    names: dict[str, str] = {}
    errors: dict[str, str] = {}
    for file, patch in patches.items():
        try:
            real = Root().real(os.path.abspath(file))
        except ShimError as error:
            errors[file] = str(error)
            continue
        if owner := owned.get(real):
            added = (each.syscall for each in patch.patched.findings if each.changed)
            why = why_kept(real, owner, overriding(real), idle=together(added, effects) == "none")
            errors[file] = printable(f"{file}: {why}")
        elif patch.patched.changed and real not in names:
            names[real] = file
            before = store.checksum(patch.before)
            change.add(plan, real, before, patch.after, patch.patched.findings)
    made = ""
    if plan.changes:
        with store.opened(args.state or store.directory(), store.PATIENCE) as opened:
            settled(opened, "patch")
            outcome = change.run(plan, opened, lambda _: None)
        made = outcome.run if outcome.count("done") else ""
        for each in outcome.results:
            if each.what != "done":
                file = names[each.change.path]
                errors[file] = printable(f"{file}: {each.reason}")
    for reason in errors.values():
        print(f"seccomp-shim patch: {reason}", file=sys.stderr)
    return made, errors


def _explain(error: ShimError | OSError, file: str) -> str:
    if isinstance(error, ShimError):
        return str(error)
    return printable(f"{error.filename or file}: {error.strerror or error}")


def _show(patch: Patch, args: argparse.Namespace, effects: "Mapping[str, Effect]") -> None:
    """Print what was asked for, and the reasons for a human."""
    from shim.cli import patch_report
    from shim.host.libseccomp import about_unknown
    from shim.profile.diff import unified

    if args.diff:
        diff = unified(patch.contents.text, patch.patched.text, printable(patch.file))
        write_diff(diff)
    elif not (args.in_place or args.check):
        sys.stdout.buffer.write(patch.after)
    sys.stdout.flush()
    later = bool(args.diff or args.check)
    for profile in patch.patched.profiles:
        where = printable(profile.part.document.where)
        for told in patch_report.call_lines(profile, effects, later, args.runtime):
            print(f"{where}: {told}", file=sys.stderr)
        if told := about_unknown(patch_report.unknown(profile)):
            print(f"{where}: {told}", file=sys.stderr)
