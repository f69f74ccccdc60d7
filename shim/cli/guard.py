"""The verb guard: run a command that attaches probes only if nobody would die of it."""

import argparse
import sys
from typing import TYPE_CHECKING

from shim.errors import ShimError, counted, printable

if TYPE_CHECKING:
    from shim.risk.containers import Running

REFUSED = 3
_SHOWN = 20

DESCRIPTION = """\
Scan those whom a probe would meet, and run COMMAND only if none of them would
die: a process and what it starts, a container, or whoever maps a program or
library. Whom nobody can judge (traced already, left to a listener) counts as
one that would. While COMMAND runs, new processes of the same kind are looked
at, and told of on standard error if they would die. Needs root."""

EPILOG = """\
On a kernel that lets the call pass every filter, COMMAND is simply run.

exit statuses: that of COMMAND; 3 it was not run, and why is told; 2 error

examples:
  seccomp-shim guard --container web -- \\
      bpftrace -e 'uretprobe:/proc/4711/root/usr/bin/app:f { @ = count(); }'
  seccomp-shim guard --binary /lib/x86_64-linux-gnu/libc.so.6 -- ./agent
  seccomp-shim guard --pid 4711 -- perf record -e probe:f__return -p 4711"""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    from shim.cli.scan import add_target_options

    parser = verbs.add_parser(
        "guard",
        help="run a command that attaches probes, if nobody would die of it",
        usage="seccomp-shim guard (--pid N | --container C | --unit U | --binary PATH)\n"
        "                          [--force] [--syscall NAME] -- COMMAND ...",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_target_options(parser)
    parser.add_argument(
        "--binary",
        default="",
        metavar="PATH",
        help="look at every process that maps this program or library",
    )
    parser.add_argument(
        "--force", action="store_true", help="run the command also if somebody would die"
    )
    parser.add_argument(
        "--syscall",
        default="uretprobe",
        metavar="NAME",
        help="the call that the probe makes a process issue (uretprobe)",
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="what to run, behind --")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Scan, then run the command or refuse."""
    from shim.risk import guard
    from shim.risk.scan import DECIDING, calls, refuse_without_root, state

    if not (args.pid or args.container or args.unit or args.binary):
        hint = "--pid, --container, --unit or --binary"
        raise ShimError("whom it would meet is not told", hint=hint)
    if args.container and args.unit:
        raise ShimError("--container and --unit exclude each other")
    asked = calls([args.syscall])
    refuse_without_root()
    group = _container(args.container) if args.container else None
    if args.unit:
        from shim.risk import units

        group = units.running(args.unit)
    meant = guard.targets(args.pid or (), group, args.binary)
    if state(asked[0]) not in DECIDING:
        _say(f"this kernel kills nobody over {args.syscall} ({state(asked[0])})")
        guard.exec_command(args.command)
    found = guard.survey(meant, asked)
    if found.risks:
        whole = counted(found.number, "process", "processes")
        _say(f"{len(found.risks)} of {whole} would die, or may:")
        for one in found.risks[:_SHOWN]:
            print(f"  {one}", file=sys.stderr)
        if more := len(found.risks[_SHOWN:]):
            print(f"  and {more} more", file=sys.stderr)
        if not args.force:
            _say("not run (--force runs it all the same)")
            return REFUSED
    else:
        _say(f"{counted(found.number, 'process is', 'processes are')} safe")
    sys.stderr.flush()
    try:
        return guard.watched(args.command, meant, asked, found, _say)
    except OSError as error:
        raise ShimError(f"not run: {error.strerror}") from None


def _container(wanted: str) -> "Running":
    """Return the container that is meant, and tell which one that is: names are given by others."""
    from shim.host.credentials import user
    from shim.risk.containers import running, user_of

    found = running(wanted)
    where, known = found.place, found.known
    if where.user and user_of(wanted)[0] != where.user:
        raise ShimError(
            f"is a container of {user(where.user)}, none of root's",
            subject=wanted,
            hint=f"{where.user}:{wanted} means that one",
        )
    whose = f" of {user(where.user)}" if where.user else ""
    what = f"{known.engine or 'a container'} {known.name} ({where.ident})"
    _say(printable(f"{wanted} is {what}{whose}"))
    return found


def _say(text: str) -> None:
    print(f"seccomp-shim guard: {text}", file=sys.stderr)
