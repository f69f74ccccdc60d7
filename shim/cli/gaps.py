"""The verb gaps: which calls of this kernel a profile, or a live filter, withholds."""

import argparse
import json
from typing import TYPE_CHECKING

from shim.cli.filter_options import add_subject_options, subject
from shim.cli.output import row, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.host.kernel_calls import Present
    from shim.risk.filter_source import Subject
    from shim.risk.foreign import Foreign
    from shim.risk.gaps import Gaps
    from shim.risk.remedies import Answer

DESCRIPTION = """\
Compare the system calls that this kernel has with what a filter answers them:
allowed; ENOSYS, on which programs fall back to an older call; EPERM or another
errno, on which they break; killed. Says who uses the call, what decides, and
what helps. Nothing is run in a container: filters are read from the process,
or made as the runtime makes them of a profile."""

EPILOG = """\
Without an option it is Docker's newest default profile. Shown are calls since
Linux 3.17; --all shows the older ones too. A name in a profile has no effect
where the runtime's libseccomp does not know it: those are marked "no name".
A filter answers the calls of 32-bit programs (i386, x32, arm) otherwise than
the machine's own: a line tells how, and --arch lists them.

exit statuses: 0 whatever was found, 2 error.

examples:
  seccomp-shim gaps
  seccomp-shim gaps --profile /etc/docker/seccomp.json --runtime crun
  seccomp-shim gaps --image-profile docker:20.10.7
  seccomp-shim gaps --container web
  seccomp-shim gaps --unit nginx --arch i386
  seccomp-shim gaps --pid 1234 --json | jq '.calls[] | select(.kind=="errno")'"""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "gaps",
        help="tell which calls of this kernel a profile or a container's filter withholds",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_subject_options(parser)
    parser.add_argument("-a", "--all", action="store_true", help="show calls before Linux 3.17 too")
    parser.add_argument("--json", action="store_true", help="print every call as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    from shim.host.kernel_calls import present
    from shim.risk.foreign import foreign
    from shim.risk.gaps import document, gaps

    asked = subject(args)
    there = present(asked.key)
    found = gaps(asked, there)
    if args.json:
        print(json.dumps(document(asked, there, found), indent=2))
    else:
        show(asked, there, found, foreign(asked), everything=args.all)
    return 0


def show(
    asked: "Subject",
    there: "Present",
    found: "Gaps",
    others: "Sequence[Foreign]" = (),
    *,
    everything: bool,
) -> None:
    """Print the gaps, newest first, and what helps."""
    from shim.risk.gaps import commands

    row("kernel", f"{len(there.names)} calls, by {there.source}", 7, columns=80)
    row("filter", asked.title, 7, columns=80)
    for note in asked.notes:
        row("", note, 7, columns=80)
    counts = found.counted()
    told = (
        f"{counts['allowed']} allowed, {counts['ENOSYS']} ENOSYS (programs fall back), "
        f"{counts['errno']} refused (they break), {counts['killed']} killed"
    )
    more = f", {counts['other']} by arguments or a supervisor" if counts["other"] else ""
    row("answers", f"{told}{more}", 7, columns=80)
    for each in others:
        row(each.key, each.line(), 7, columns=80)
    shown = found.recent() + (found.older() if everything else [])
    if shown:
        print()
        print(table(("SINCE", "NR", "CALL", "ANSWER", "USED BY"), _rows(shown)), end="")
    older = len(found.older())
    if older and not everything:
        print(f"\n{older} older calls are withheld too, mostly on purpose (--all shows them).")
    if shown and not asked.is_listed:
        print("\nThe profile does not list this architecture.")
    elif shown:
        print("\nseccomp-shim explain CALL says which rule decides. What helps:")
        for text, command in commands(shown, asked.file):
            print(f"  {text}:\n    {command}")


def _rows(answers: "list[Answer]") -> "list[tuple[str, ...]]":
    """Return the rows of the table."""
    return [
        (
            each.call.kernel or "-",
            str(each.number),
            each.call.name,
            f"{each.word}, no name" if each.nameable is False else each.word,
            each.call.users or "-",
        )
        for each in answers
    ]
