"""The verb fleet: many hosts, by Ansible. The words are here, what they do in the other files."""

import argparse

from shim.cli import when_option

_DESCRIPTION = """\
Ask many hosts what their kernels do and which profiles they have, plan what to
change, change it in batches, roll it back, and report. The hosts are those of
an Ansible inventory; they need Python 3.11 and nothing else."""

_EPILOG = """\
The usual way:
  seccomp-shim fleet facts -i hosts.yml
  seccomp-shim fleet plan -i hosts.yml --diff
  seccomp-shim fleet apply -i hosts.yml
  seccomp-shim fleet report -i hosts.yml --html report.html

Every run has an id and a journal: --resume goes on with one that was
interrupted or stopped, and asks those hosts again that had failed. What follows
a -- goes on to ansible-playbook:
  seccomp-shim fleet facts -i hosts.yml -- --user admin

exit statuses: 0 done, 1 hosts have failed or could not be reached or the
roll-out was stopped, 2 error: nothing was begun, 130 interrupted."""

_EACH = {
    "facts": "ask hosts about kernel, runtimes, engines and profiles",
    "plan": "have hosts tell what they would change; nothing is changed",
    "apply": "carry out a plan: on one host first, then on the others, or in batches",
    "rollback": "undo what an apply has changed",
    "report": "tell of every host: in how far is it affected, what was changed",
}


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = verbs.add_parser(
        "fleet",
        help="many hosts by Ansible: facts, plan, apply, rollback, report",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=raw,
    )
    subverbs = parser.add_subparsers(dest="subverb", metavar="VERB", required=True)
    made = {
        name: subverbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        for name, text in _EACH.items()
    }
    for name, each in made.items():
        _common(each, reaches=name != "report")
        each.set_defaults(run=run)
    _facts(made["facts"])
    _plan(made["plan"])
    _apply(made["apply"])
    _rollback(made["rollback"])
    _report(made["report"])


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    from shim.cli.fleet import report, runs

    args.verb = f"fleet {args.subverb}"
    return report.run(args) if args.subverb == "report" else runs.run(args)


def _common(parser: argparse.ArgumentParser, *, reaches: bool) -> None:
    parser.add_argument(
        "-i",
        "--inventory",
        action="append",
        required=True,
        metavar="INVENTORY",
        help="Ansible inventory; may be given again",
    )
    parser.add_argument(
        "--limit", default="", metavar="PATTERN", help="only hosts that match, as Ansible has it"
    )
    parser.add_argument("--state", default="", metavar="DIR", help="where the journals are")
    parser.add_argument("--json", action="store_true", help="print one JSON document a host")
    parser.add_argument("ansible", nargs="*", metavar="-- OPTION", help="for ansible-playbook")
    if not reaches:
        return
    parser.add_argument(
        "--forks", type=_positive, default=25, metavar="N", help="hosts at a time (25)"
    )
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=600,
        metavar="SECONDS",
        help="how long one host may take (600)",
    )
    parser.add_argument("--no-become", action="store_true", help="do without sudo on the hosts")
    parser.add_argument("-k", "--ask-pass", action="store_true", help="ask for the password of ssh")
    parser.add_argument(
        "-K", "--ask-become-pass", action="store_true", help="ask for the password of sudo"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        default=None,
        metavar="ID",
        help="go on with your last run of this kind, or with this one",
    )


def _facts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--extra-path",
        action="append",
        default=[],
        metavar="PATH",
        help="this file or directory of the hosts, too; may be given again",
    )
    _homes(parser)


def _plan(parser: argparse.ArgumentParser) -> None:
    when_option.add(parser)
    parser.add_argument(
        "--path",
        action="append",
        default=[],
        metavar="PATH",
        help="only this file, or what is in this directory of the hosts; may be given again",
    )
    _homes(parser)
    parser.add_argument(
        "--enosys",
        action="append",
        default=[],
        metavar="newer|unnamed|NAME",
        help="answer calls that no rule names with ENOSYS, as patch does; may be repeated",
    )
    parser.add_argument(
        "--override-deny", action="store_true", help="allow also what a profile denies by name"
    )
    parser.add_argument(
        "--force", action="store_true", help="change also files that belong to a package"
    )
    parser.add_argument("--diff", action="store_true", help="show the changes, alike ones once")


def _homes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--homes", action="store_true", help="look into the home directories of users, too"
    )


def _apply(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plan", default="", metavar="ID", help="carry out this plan (your last one)"
    )
    _batches(parser, canary=True)
    parser.add_argument(
        "--auto-rollback",
        action="store_true",
        help="where containers do worse than before, roll the batch back",
    )


def _rollback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--id",
        default="",
        metavar="ID",
        help="roll back this apply (your last one of which something is left)",
    )
    _batches(parser, canary=False)


def _batches(parser: argparse.ArgumentParser, *, canary: bool) -> None:
    if canary:
        parser.add_argument(
            "--canary",
            type=_positive,
            default=None,
            metavar="N",
            help="first N hosts, of as many kinds as can be (1, or none with --serial)",
        )
    parser.add_argument(
        "--serial",
        default="",
        metavar="N|N%[,...]",
        help="so many of the hosts at a time, as Ansible's serial; the last size is that of all "
        "batches that follow (100%%: all at once)",
    )
    parser.add_argument(
        "--max-fail",
        default="0",
        metavar="PERCENT",
        help="go on to the next batch if no more hosts of this one failed (0)",
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="do not start containers on the hosts to see whether they do",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before hosts are changed")


def _report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--html", default="", metavar="FILE", help="write a page that needs nothing else"
    )


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return value
