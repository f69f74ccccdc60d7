"""The verb explain: one system call on one screen."""

import argparse
import json
from typing import TYPE_CHECKING

from shim.cli.container_options import key_of, machine
from shim.cli.filter_options import add_subject_options, subject
from shim.cli.output import row

if TYPE_CHECKING:
    from shim.risk.explain import Explained
    from shim.risk.filter_source import Subject

DESCRIPTION = """\
Tell all there is to know of one system call: since when kernels have it, who
uses it, which rule of the profile decides on it, what the runtime makes of
that, what the filter answers for which arguments, and what to do."""

EPILOG = """\
Without an option it is asked of Docker's newest default profile.

exit statuses: 0 it is let through, 1 it is not (for some arguments at least),
2 error.

examples:
  seccomp-shim explain clone3
  seccomp-shim explain 435 --image-profile docker:20.10.0
  seccomp-shim explain statx --profile app.json --runtime crun
  seccomp-shim explain fchmodat2 --container web"""

_WIDTH = 9


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "explain",
        help="tell of one call what a profile or filter answers it, why, and what to do",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("call", metavar="CALL|NR", help="the call's name, or its number here")
    add_subject_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Explain and print; 1 where it is a gap."""
    from shim.host.kernel_calls import present
    from shim.risk.explain import document, explain, find

    call = find(args.call, args.arch or key_of(machine(args)))
    asked = subject(args)
    told = explain(asked, present(asked.key), call)
    if args.json:
        print(json.dumps(document(asked, told), indent=2))
    else:
        show(asked, told)
    return int(told.answer is not None and told.answer.is_gap)


def show(asked: "Subject", told: "Explained") -> None:
    """Print what is known, a line or more for each thing."""
    call = told.call
    here = call.numbers.get(asked.key)
    number = f"{here} on {asked.key}" if here is not None else f"not on {asked.key}"
    others = {nr for key, nr in call.numbers.items() if key != asked.key}
    same = "the same elsewhere" if others == {here} else "others elsewhere"
    since = f"since Linux {call.kernel}" if call.kernel else "no kernel has code for it"
    _row("call", f"{call.name}, {number}{f' ({same})' if others else ''}, {since}")
    if call.kind == "kernel-injected":
        _row("", "kernels make processes call it: no program does by itself")
    there = "has it" if told.present else "does not have it"
    _row("kernel", f"this one {there} (by {told.source})")
    if call.users:
        _row("used by", call.users)
    if call.risk:
        _row("risk", call.risk)
    _row("filter", asked.title)
    for note in asked.notes:
        _row("", note)
    if told.answer is None:
        return
    for rule in told.rules:
        some = ", for certain arguments" if rule.sometimes else ""
        lacks = f"; {rule.lacks}" if rule.lacks else ""
        _row("rule", f"{rule.where}: {rule.action}{some}{lacks}")
    if asked.document is not None and not told.rules:
        _row("rule", f"none names it; the default action is {asked.default}")
    if told.answer.nameable is not None:
        knows = "knows the name" if told.answer.nameable else "does not know the name, and drops it"
        since = f" (the first that does: {call.libseccomp or 'none yet'})"
        _row("runtime", f"its libseccomp {knows}{since}")
    _row("answer", f"{told.answer.word}: {told.answer.cause}")
    for word, when in told.arguments:
        _row("", f"{word} if {when}" if when else f"{word} always")
    for remedy in told.answer.remedies:
        _row("to do", remedy.text)
        if remedy.command:
            print(f"{'':{_WIDTH}}   {remedy.command}")
    if not told.answer.remedies:
        _row("to do", "nothing")


def _row(label: str, text: str) -> None:
    row(label, text, _WIDTH, columns=80)
