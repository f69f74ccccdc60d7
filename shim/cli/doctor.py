"""The verb doctor: one screen of how this host is, and the one thing to do next."""

import argparse
import json
from typing import TYPE_CHECKING

from shim.cli.output import row, screen

if TYPE_CHECKING:
    from shim.risk.doctor import Checked

DESCRIPTION = """\
Look at all of this host on one screen: the kernel, engines, runtimes and their
libseccomp, what is registered and whether it works, which processes would die
of a probe now, the log and what went wrong in it. Then the one recommended
step, as a command, with its cost and what it will not cover. Nothing is
changed. Without root it says what it could not see."""

EPILOG = """\
examples:
  sudo seccomp-shim doctor
  seccomp-shim doctor --json | jq -r .step.command

exit statuses: 0 there is nothing to do, 1 there is a step, 2 error."""

_COLUMNS = 80
_WIDTH = 10


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "doctor",
        help="tell on one screen how this host is, and what to do next",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--verbose", action="store_true", help="show the whole screen even with nothing to do"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look, and print."""
    from shim.risk import doctor

    found = doctor.check()
    if args.json:
        print(json.dumps(doctor.document(found), indent=2))
    else:
        show(found, screen() or _COLUMNS, whole=args.verbose)
    return 1 if doctor.step(found) else 0


def show(found: "Checked", columns: int, *, whole: bool = False) -> None:
    """Print the screen; where there is nothing to do that is one line."""
    from shim.risk import doctor

    step = doctor.step(found)
    if step or whole:
        for label, text in doctor.rows(found):
            row(label, text, _WIDTH, columns=columns)
        print()
    if step is None:
        states = ", ".join(f"{name} {state}" for name, state in found.states.items())
        row("Nothing to do:", f"{found.verdict} ({states}).", 0, columns=columns)
        return
    row("next", step.command, _WIDTH)
    row("why", step.why, _WIDTH, columns=columns)
    row("cost", step.cost, _WIDTH, columns=columns)
    if step.left_out:
        row("left out", step.left_out, _WIDTH, columns=columns)
