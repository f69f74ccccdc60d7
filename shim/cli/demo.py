"""``seccomp-shim demo``: the main job on a real container, before and after, in plain words."""

import argparse
import os
import shutil
import sys

from shim.cli import runtime_option
from shim.errors import ShimError


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "demo",
        help="show what the hook does to a real container",
        description="Run a tiny container under Docker's default profile with the runc and crun "
        "of this host, without the hook and with it; show the filters that are really installed, "
        "the proof of what distinguishes them, and the line in the log. Needs root; leaves "
        "nothing behind.",
        epilog="exit statuses: 0 it was shown (or there is nothing to show on this machine), 2 "
        "error, or the hook did not do what it is for.",
    )
    parser.add_argument(
        "--runtime",
        action="append",
        metavar="runc|crun|PATH",
        help="an OCI runtime to show it with (default: the runc and crun on PATH)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show it with each runtime; 2 if one does not behave as described."""
    from shim.engines import demonstration

    if os.geteuid() != 0:
        raise ShimError("only root can run containers here", hint="sudo seccomp-shim demo")
    if os.uname().machine != "x86_64":
        print(f"Nothing to show: {os.uname().machine} has none of the calls (they are x86-64's).")
        return 0
    named = [runtime_option.named(each).path for each in args.runtime or []]
    runtimes = named or [path for each in runtime_option.KINDS if (path := shutil.which(each))]
    if not runtimes:
        raise ShimError("neither runc nor crun is on PATH", hint="install one, or name --runtime")
    subject = demonstration.choose_call()
    print("\n".join(demonstration.introduction(subject)))
    failed = False
    for each in runtimes:
        print()
        shown = demonstration.demonstrate(each, subject)
        print("\n".join(shown.lines))
        failed = failed or not shown.good
    if failed:
        print("The hook did not do what it is for; see above.", file=sys.stderr)
    return 2 if failed else 0
