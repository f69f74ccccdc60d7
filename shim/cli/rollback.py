"""The verb rollback: undo what patch did."""

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from shim.errors import ShimError, counted, printable

if TYPE_CHECKING:
    from shim.transaction.plan import Plan
    from shim.transaction.runs import Run
    from shim.transaction.store import State

DESCRIPTION = """\
Roll back a run of patch --all or patch --in-place, or what the last run did to
certain files: their content becomes byte for byte what it was. Owner, mode and
attributes stay as they are. A rollback is a run of its own and can be rolled
back as well."""

EPILOG = """\
--last is the last of your own runs that changed a file; under sudo you are the
user who called it. Another user's run has to be named by --id.

A file that somebody has changed since the run is left alone unless --force is
given; what it held is kept as a backup even then. Runs that were killed count
too: what they left half done is found out and written down first.

Backups are in /var/lib/seccomp-shim/backups, named by the SHA-256 of their
content, journals in /var/lib/seccomp-shim/runs; for users other than root both
are in ~/.local/state/seccomp-shim.

examples:
  seccomp-shim rollback --list
  seccomp-shim rollback --last --dry-run
  seccomp-shim rollback --id 17
  seccomp-shim rollback /etc/docker/seccomp.json

exit statuses: 0 done or nothing to do, 1 files were left alone, 2 error."""

_WORDS = "--last, --id ID or FILE; --list shows the runs"


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "rollback",
        help="undo what patch --all or --in-place did",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="roll back only these files")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--last", action="store_true", help="roll back your last run that changed a file"
    )
    which.add_argument(
        "--id", default="", metavar="ID", help="roll back this run: its id, or its number"
    )
    which.add_argument("--list", action="store_true", help="list the runs, change nothing")
    parser.add_argument(
        "--force", action="store_true", help="also overwrite what was changed since the run"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be done")
    parser.add_argument("--json", action="store_true", help="with --list: one document a run")
    parser.add_argument("--state", default="", metavar="DIR", help="where backups and journals are")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Roll back, or list."""
    from shim.cli.transaction import carry_out, settled
    from shim.transaction import store as state

    named = args.files or args.last or args.id or args.list
    directory = args.state or state.directory()
    if not os.path.isdir(directory):
        if not named:
            raise ShimError("nothing was named", hint=_WORDS)
        raise ShimError("nothing has been changed from here", subject=directory)
    with state.opened(directory) as opened:
        settled(opened, "rollback")
        if not named:
            raise ShimError("nothing was named", hint=_last(opened))
        if args.list:
            _list(opened, as_json=args.json)
            return 0
        from shim.discovery.root import Root
        from shim.transaction.rollback import rolling_back

        paths = [Root().real(os.path.abspath(path)) for path in args.files]
        plan = rolling_back(opened, args.id, paths, force=args.force)
        for path, reason in plan.refused:
            print(f"seccomp-shim rollback: {printable(f'{path}: {reason}')}", file=sys.stderr)
        if args.dry_run:
            _show(plan)
            return 1 if plan.refused else 0
        code = carry_out(plan, opened, "rollback") if plan.changes else 0
        if not plan.changes:
            left = counted(len(plan.refused), "file")
            print(f"0 files rolled back, {left} left alone" if plan.refused else "nothing to do")
        return max(code, 1 if plan.refused else 0)


def _last(opened: "State") -> str:
    """Say what there is to roll back."""
    from shim.transaction.runs import listed
    from shim.transaction.store import whose

    for run in reversed(listed(opened)):
        changed = sum(entry.state != "old" for entry in run.entries.values())
        if changed and run.by == whose():
            what = f"{run.kind} of {counted(changed, 'file')}"
            return f"--last undoes run {run.id}, a {what}; {_WORDS}"
    return _WORDS


def _show(plan: "Plan") -> None:
    from shim.transaction.store import NOTHING

    for change in plan.changes:
        if change.after == NOTHING:
            what = "would be removed: the run has made it"
        else:
            what = f"would get back what it held before the run (SHA-256 {change.after})"
        print(f"{printable(change.path)}: {what}")


def _list(opened: "State", *, as_json: bool) -> None:
    from shim.cli.output import table
    from shim.transaction.runs import listed

    runs = listed(opened)
    if as_json:
        for each in runs:
            files = [entry._asdict() for entry in each.entries.values()]
            print(json.dumps({**each._asdict(), "entries": None, "files": files}))
        return
    rows = [_row(each) for each in runs]
    print(table(("ID", "WHAT", "BY", "NEW", "LEFT OLD", "CHANGED SINCE", "ENDED"), rows), end="")


def _row(run: "Run") -> tuple[str, ...]:
    states = [entry.state for entry in run.entries.values()]
    what = f"{run.kind} of {run.of}" if run.of else run.kind
    counts = (str(states.count(state)) for state in ("new", "old", "changed"))
    return (run.id, what, run.by or "?", *counts, run.ended or "at work")
