"""The verb denials: which calls filters refuse now, to whom, and what helps."""

import argparse
import datetime
import errno
import math
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from shim import abi
from shim.cli import duration
from shim.cli.signals import answered
from shim.errors import ShimError, counted, printable

if TYPE_CHECKING:
    from shim.risk.denials import Denial, Denials

DESCRIPTION = """\
Watch which system calls are refused by seccomp filters, as it happens: call,
answer, program, how often, and with which arguments where a filter looks at
them. No container is touched, stopped or traced: the kernel tells each call
that ends with an errno, and its caller's filters are asked about just that
call. EPERM of the kernel's own is no denial.

It goes on for the time of --for, and until CMD ends if there is one; with
neither until CTRL-C. Needs root and a kernel from 5.17 on with BTF. x86-64."""

EPILOG = """\
examples:
  seccomp-shim denials --container web
  seccomp-shim denials --unit nginx --for 10m
  seccomp-shim denials --all --for 30s --json
  seccomp-shim denials -- docker run --rm debian:13 ls -l

exit statuses: 0 nothing was refused, 1 something was, 2 error."""

_STEP = 0.2
_ARGUMENTS = 3
_LAST_SECONDS = 5


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "denials",
        help="watch which system calls filters refuse",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--container", metavar="C", help="a container's name, or its id")
    whose.add_argument("--unit", metavar="NAME", help="a unit of systemd, also one yet to start")
    whose.add_argument("--pid", type=int, metavar="N", help="a process, and what it starts")
    whose.add_argument("--all", action="store_true", help="everybody on this host")
    parser.add_argument(
        "--for", dest="seconds", type=_seconds, metavar="TIME", help="how long: 30s, 5m, 1h, 2d"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document at the end")
    parser.add_argument(
        "command",
        nargs="*",
        metavar="CMD",
        help="watch what this command starts: its own processes and new containers",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Watch, then print what was refused."""
    from shim.risk import units
    from shim.risk.denials import Denials
    from shim.risk.scan import refuse_without_root
    from shim.risk.watch_scope import Watched, container

    if bool(args.command) == bool(args.container or args.unit or args.pid or args.all):
        raise ShimError(
            "say whose calls: --container, --unit, --pid or --all, or a command after --"
        )
    refuse_without_root()
    told, pids, unit = "anybody", list[int](), None
    if args.container:
        told, pids = container(args.container)
    elif args.unit:
        unit = units.unit(args.unit)
        told = f"systemd {unit.ident}"
    elif args.pid:
        told, pids = f"process {args.pid}", [args.pid]
        if not os.path.exists(f"/proc/{args.pid}"):
            raise ShimError("there is no such process", subject=str(args.pid))
    elif args.command:
        told = f"what {args.command[0]} started"
    watched = Watched(
        pid=args.pid or 0,
        pids=pids if args.container else (),
        starter=os.getpid() if args.command else 0,
        unit=unit,
    )
    with Denials(watched, places=watched.places, pid=args.pid or 0) as denials:
        took = _watch(denials, args, told)
        found, lost = denials.found(), denials.lost() + denials.unnoted
    if args.json:
        _print_json(found, took, lost)
    else:
        _print(found, told, took, lost)
    return 1 if any(each.answer is not None for each in found) else 0


def _seconds(text: str) -> float:
    found = duration.seconds(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no time: write it as 30s, 5m or 1h")
    return found


def _watch(denials: "Denials", args: argparse.Namespace, told: str) -> float:
    """Watch until the time is over, the command has ended, or CTRL-C; return how long it took."""
    began = time.monotonic()
    until = began + args.seconds if args.seconds else 0 if args.command else math.inf
    child: subprocess.Popen[bytes] | None = None
    # An exception in the middle of a look would lose the call that is judged just then.
    ended: list[int] = []
    with answered((signal.SIGINT, signal.SIGTERM), ended.append):
        if not args.command:
            ends = "until CTRL-C" if until == math.inf else f"for {args.seconds:g} s"
            print(f"watching what is refused to {printable(told)}, {ends}", file=sys.stderr)
        else:
            child = _started(args.command)
        # A command was sent CTRL-C, too, and has the last word.
        while (child and child.poll() is None) or (not ended and time.monotonic() < until):
            denials.poll(min(_STEP, max(0, until - time.monotonic())) if not child else _STEP)
    took = time.monotonic() - began
    denials.finish(_LAST_SECONDS)
    if child and child.returncode:
        print(f"{printable(args.command[0])}: exit status {child.returncode}", file=sys.stderr)
    return took


def _started(command: list[str]) -> "subprocess.Popen[bytes]":
    try:
        # Standard output is the table's or the document's; a command's own goes to the terminal.
        return subprocess.Popen(command, stdout=2)
    except OSError as error:
        raise ShimError(f"cannot be started ({error.strerror})", subject=command[0]) from error


def _print(found: "list[Denial]", told: str, took: float, lost: int) -> None:
    from shim.cli.output import screen, table

    certain = [each for each in found if each.answer is not None]
    calls = sum(each.count for each in certain)
    width = screen() or 10_000
    head = f"{counted(calls, 'call')} refused to {printable(told)} in {took:.1f} s"
    print(f"{head}{':' if certain else '.'}")
    if certain:
        named = any(each.group not in ("-", told) for each in certain)
        columns = ("call", "answer", "program", "pid", "count", "last", *(["of"] if named else []))
        rows = [
            (
                _name(each) if _arch(each) == "x86_64" else f"{_name(each)} ({_arch(each)})",
                _answer(each),
                *(each.program, str(each.pid), str(each.count)),
                _clock(each.last).strftime("%H:%M:%S"),
                *([each.group] if named else []),
            )
            for each in certain
        ]
        print(table(columns, rows), end="")
        for each in certain:
            for args in each.arguments[:_ARGUMENTS]:
                words = ", ".join(f"{word:#x}" for word in args)
                print(f"{_name(each)} of {printable(each.program)}: with {words}"[:width])
        print("\nWhat decides, and what helps:")
        for (name, arch), each in {
            (_name(each), _arch(each)): each for each in reversed(certain)
        }.items():
            if name.isdecimal():
                print(f"  nothing that we know: no Linux of our catalogue has a call {name}")
                continue
            other = "" if arch == "x86_64" else f" --arch {arch}"
            print(f"  seccomp-shim explain {name} --pid {each.pid}{other}")
    unsure = sum(each.count for each in found if each.answer is None)
    if unsure:
        print(
            f"{counted(unsure, 'call')} more failed under filters that could not be read: "
            "refused or not, that is not known."
        )
    if lost:
        print(f"{counted(lost, 'call')} more came too fast to be told.")


def _print_json(found: "list[Denial]", took: float, lost: int) -> None:
    import json

    print(
        json.dumps(
            {
                "seconds": round(took, 3),
                "lost": lost,
                "denials": [_document(each) for each in found if each.answer is not None],
                "unsure": [_document(each) for each in found if each.answer is None],
            },
            indent=2,
        )
    )


def _document(denial: "Denial") -> dict[str, Any]:
    from shim.bpf.program import action_name

    return {
        "call": _name(denial),
        "nr": denial.nr,
        "arch": _arch(denial),
        "answer": None if denial.answer is None else action_name(denial.answer),
        "errno": denial.errno and errno.errorcode.get(denial.errno, str(denial.errno)),
        "program": denial.program,
        "pid": denial.pid,
        "group": denial.group,
        "count": denial.count,
        "first": _clock(denial.first).isoformat(timespec="milliseconds"),
        "last": _clock(denial.last).isoformat(timespec="milliseconds"),
        "arguments": [[f"{word:#x}" for word in args] for args in denial.arguments],
    }


def _name(denial: "Denial") -> str:
    from shim.catalog.table import names

    number = denial.nr & ~abi.X32_SYSCALL_BIT
    return names(_arch(denial)).get(number, str(number))


def _arch(denial: "Denial") -> str:
    if denial.arch == abi.AUDIT_ARCH_I386:
        return "i386"
    return "x32" if denial.nr & abi.X32_SYSCALL_BIT else "x86_64"


def _answer(denial: "Denial") -> str:
    """Say what the program got."""
    action = (denial.answer or 0) & abi.SECCOMP_RET_ACTION_FULL
    if action == abi.SECCOMP_RET_KILL_THREAD and denial.errno == 0:
        return "thread killed"
    if action in (abi.SECCOMP_RET_KILL_PROCESS, abi.SECCOMP_RET_KILL_THREAD):
        return "killed"
    if action == abi.SECCOMP_RET_TRAP:
        return "SIGSYS"
    return errno.errorcode.get(denial.errno or 0, str(denial.errno))


def _clock(stamp: int) -> datetime.datetime:
    """Return the time of day of a stamp of the monotonic clock."""
    ago = (time.monotonic_ns() - stamp) / 1e9
    return datetime.datetime.now().astimezone() - datetime.timedelta(seconds=ago)
