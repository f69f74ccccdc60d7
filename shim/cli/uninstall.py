"""The verb uninstall: undo what install has changed."""

import argparse

from shim.cli import engine_options
from shim.cli.install import Report, common_options, needs_root

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
    engine_options.add_verb(
        verbs,
        "uninstall",
        run,
        common_options,
        help="undo what install has changed",
        description=DESCRIPTION,
        epilog=EPILOG,
    )


def run(args: argparse.Namespace) -> int:
    """Plan, show, roll back, and tell the running engine."""
    from shim.engines import service
    from shim.engines.registration import this_host

    host = this_host()
    engine_options.refuse_missing(args, host)
    try:
        planned = service.plan_uninstall(args.engine, args, host)
        report = Report(args, planned)
        report.carry_out(planned)
    except PermissionError as error:
        raise needs_root(error, args) from None
    return report.end([])
