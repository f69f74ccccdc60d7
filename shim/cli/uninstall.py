"""The verb uninstall: undo what install has changed."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from shim.cli import engineoptions
from shim.cli.install import Report, common_options, needs_root
from shim.errors import ShimError

if TYPE_CHECKING:
    from shim.engines.registration import Host
    from shim.engines.registration.changes import Edit

DESCRIPTION = """\
Undo what install has changed in an engine's configuration. A file that nobody
else has changed since is given back byte for byte; from another only our own
entries are taken out. Every change is shown as a diff first. No engine is ever
restarted: where that is needed you are told."""

EPILOG = """\
examples:
  seccomp-shim uninstall docker --dry-run
  seccomp-shim uninstall docker

exit statuses: 0 done or nothing to do, 1 done, but the running engine could not
be told, 2 error, with nothing changed."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "uninstall",
        help="undo what install has changed",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    engineoptions.add(
        parser, "uninstall_options", required=True, description=DESCRIPTION, common=common_options
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plan, show, roll back, and tell the running engine."""
    from shim.engines.registration import changes, load, this_host

    host, engine = this_host(), load(args.engine)
    engineoptions.refuse_missing(args, host)
    try:
        places = engine.places(args, host)
        planned = changes.rolling_back(args.engine, places, engine.without, host.state)
        if theirs := engineoptions.roots([each.path for each in planned] or places[:1]):
            raise ShimError(
                "this takes root: what was there before us is recorded for root's eyes only",
                subject=str(theirs),
                hint=f"sudo seccomp-shim uninstall {args.engine}",
            )
        edits, notes = engine.removal(args, host, planned)
        report = Report(args, edits, notes + _kept(args.engine, host, planned))
        if not args.dry_run:
            changes.roll_back(args.engine, edits, host.state, host.log)
            report.activate(engine, args, host)
    except PermissionError as error:
        raise needs_root(error, args) from None
    return report.end([])


def _kept(engine: str, host: "Host", edits: "list[Edit]") -> list[str]:
    """Name the files that we made and somebody else has edited: they are left."""
    from shim.engines.registration.changes import content, recorded

    changed = {str(each.path) for each in edits}
    return [
        f"{path} was edited since and is left where it is"
        for path, kept in recorded(engine, host.state).files.items()
        if kept.original is None and path not in changed and content(Path(path)) is not None
    ]
