"""The verb install: tell an engine of seccomp-shim."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shim.cli import engine_options
from shim.cli.output import answer, write_diff
from shim.errors import ShimError, printable

if TYPE_CHECKING:
    from shim.engines.registration import Coverage, Host
    from shim.engines.service import PlannedChange

DESCRIPTION = """\
Change an engine's configuration so that its containers are kept alive: every
change is shown as a diff first, recorded, and undone by uninstall. Run it again
at any time; where all is as it should be, nothing is done. No engine is ever
restarted: where that is needed you are told."""

EPILOG = """\
examples:
  seccomp-shim install docker --dry-run
  seccomp-shim install docker --default
  seccomp-shim install docker --help

exit statuses: 0 done or nothing to do, 1 done, but the running engine could not
be told, or nothing done since the question on the terminal was not answered,
2 error, with nothing changed."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    engine_options.add_verb(
        verbs,
        "install",
        run,
        common_options,
        help="have an engine run its containers through seccomp-shim",
        description=DESCRIPTION,
        epilog=EPILOG,
    )


def common_options(parser: argparse.ArgumentParser) -> None:
    """Add what install and uninstall share."""
    parser.add_argument("--dry-run", action="store_true", help="show the diff, change nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")


def run(args: argparse.Namespace) -> int:
    """Plan, show, apply, and tell the running engine."""
    from shim.engines import service
    from shim.engines.registration import this_host

    host = this_host()
    engine_options.refuse_missing(args, host)
    try:
        planned = service.plan_install(args.engine, args, host)
        asks = not planned.coverage.plain and _may_ask(args)
        if asks:
            chosen = _chosen(args, planned, _whole(args, host))
            if chosen is None:
                print(f"{args.engine}: not answered: nothing was changed", file=sys.stderr)
                return 1
            planned = chosen
        report = Report(args, planned, seen=asks)
        report.carry_out(planned)
    except PermissionError as error:
        raise needs_root(error, args) from None
    report.cover(planned.coverage)
    steps = planned.next_steps
    if not planned.coverage.plain:
        steps = [f"to cover these as well: seccomp-shim install {args.engine}{_all(args)}", *steps]
    return report.end(steps)


def _may_ask(args: argparse.Namespace) -> bool:
    """Tell whether somebody is there to be asked what the command does not say."""
    said = args.json or args.dry_run or getattr(args, "runtime", "") or not hasattr(args, "default")
    return not said and args.default is None and sys.stdin.isatty() and sys.stderr.isatty()


def _whole(args: argparse.Namespace, host: "Host") -> "PlannedChange | ShimError":
    """Return the plan with ``--default``, or why there is none."""
    from shim.engines.service import plan_install

    try:
        options = argparse.Namespace(**{**vars(args), "default": True})
        return plan_install(args.engine, options, host)
    except ShimError as error:
        return error


def _chosen(
    args: argparse.Namespace, plan: "PlannedChange", whole: "PlannedChange | ShimError"
) -> "PlannedChange | None":
    """Show both plans' diffs and ask for one; None: it was not answered."""

    def say(line: str) -> None:
        print(f"{args.engine}: {printable(line)}", file=sys.stderr)

    def show(each: "PlannedChange") -> None:
        write_diff(shown := each.diff)
        say(f"covered: {each.coverage.covered}")
        say(f"not covered: {each.coverage.left_out}")
        if not shown:
            say("no file needs to be changed for that")

    show(plan)
    if isinstance(whole, ShimError):
        say(f"these cannot be covered as well (--default): {whole}")
        return plan
    say("with --default instead:")
    show(whole)
    answered = answer(f"{args.engine}: cover these as well (--default)?", usual=True)
    return None if answered is None else whole if answered else plan


def _all(args: argparse.Namespace) -> str:
    return " --default" if hasattr(args, "default") else ""


def needs_root(error: PermissionError, args: argparse.Namespace) -> ShimError:
    """Return the error with what most probably helps."""
    return ShimError(
        error.strerror or "permission denied",
        subject=str(error.filename or ""),
        hint=f"run it as root: sudo seccomp-shim {args.verb} {args.engine}",
    )


class Report:
    """What a change is, printed as it goes on, or as one JSON document at the end.

    The diff goes to standard output, everything else to standard error.
    """

    def __init__(
        self, args: argparse.Namespace, planned: "PlannedChange", *, seen: bool = False
    ) -> None:
        """Say the notes, and show the diff unless it was ``seen`` already."""
        shown = planned.diff
        self.code = 0
        self.json: bool = args.json
        self.dry_run: bool = args.dry_run
        self.document: dict[str, Any] = {
            "verb": planned.verb,
            "engine": planned.engine,
            "dry_run": args.dry_run,
            "changed": bool(shown),
            "files": [str(each.path) for each in planned.edits],
            "diff": shown,
            "notes": planned.notes,
            "done": [],
        }
        self._say(planned.notes)
        if not self.json and not seen:
            write_diff(shown)
        self._say([] if shown else ["no file needs to be changed"])

    def carry_out(self, planned: "PlannedChange") -> None:
        """Write the files, tell the running engine, and add what became of that."""
        from shim.engines import service

        if self.dry_run:
            return
        service.make(planned)
        try:
            lines = service.activate(planned)
        except (ShimError, OSError) as error:
            lines = [f"the running engine could not be told: {error}"]
            self.code = 1
        self.document["done"] = lines
        word = "written" if planned.verb == "install" else "rolled back"
        self._say([*([word] if self.document["changed"] else []), *lines])

    def cover(self, coverage: "Coverage") -> None:
        """Say who is covered once this is done, and who is not."""
        self.document["covered"] = coverage.covered
        self.document["not_covered"] = coverage.left_out
        self._say([f"covered: {coverage.covered}", f"not covered: {coverage.left_out}"])

    def end(self, next_steps: Sequence[str]) -> int:
        """Add what is left to do, print the document, and give the exit status."""
        self.document["next_steps"] = next_steps
        self._say([f"next: {each}" for each in next_steps])
        self._say(["nothing was changed (--dry-run)"] if self.dry_run else [])
        if self.json:
            print(json.dumps(self.document, indent=2))
        return self.code

    def _say(self, lines: Sequence[str]) -> None:
        for line in lines if not self.json else ():
            print(f"{self.document['engine']}: {printable(line)}", file=sys.stderr)
