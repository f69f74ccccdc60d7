"""The verb prove: a real uretprobe on a process of our own, without the shim and with it."""

import argparse
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from shim.cli.output import row, table
from shim.cli.signals import answered
from shim.errors import ShimError

if TYPE_CHECKING:
    from shim.risk.prove import Proof
    from shim.risk.sides import Unasked

DESCRIPTION = """\
Put a real uretprobe on a process of our own, on this host and now, and tell
whether it lived: a child under a profile, without the shim and with it; with
--runtime a tiny container, without the hook and with it; with --engine a
container of the engine by its plain runtime and one by the shim in front of
it, where it can be asked for both without a change of its configuration.
Nothing else is touched, and nothing is left. Needs root."""

EPILOG = """\
exit statuses: 0 it lived with the shim, 1 it died, 2 error, 3 the engine cannot
be asked for one with the shim: it is not registered there

examples:
  seccomp-shim prove
  seccomp-shim prove --profile /etc/docker/own.json
  seccomp-shim prove --runtime crun
  seccomp-shim prove --engine docker --json | jq .with.lived"""


_NOT_ASKED = 3
_SIDES = ("without the shim", "with the shim")
_WIDTH = 18


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "prove",
        help="put a real probe on a process of our own, with and without the shim",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--profile", default="", metavar="P", help="a profile's file (default: Docker's)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--runtime", default="", metavar="runc|crun|PATH", help="probe a container of this runtime"
    )
    where.add_argument(
        "--engine",
        default="",
        choices=("docker", "podman", "containerd"),
        metavar="NAME",
        help="probe a container of docker, podman or containerd",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prove and print."""
    from shim.risk.scan import calls, state
    from shim.risk.sides import Unasked

    if os.geteuid() != 0:
        raise ShimError("only root can attach probes", hint="sudo seccomp-shim prove")
    if os.uname().machine != "x86_64":
        raise ShimError(f"{os.uname().machine} has none of the calls (they are x86-64's)")
    if args.engine and args.profile:
        raise ShimError("an engine has its own profile", hint="--profile goes with --runtime")
    # An end from outside takes what we have started with us, as an interrupt does.
    ending = (signal.SIGTERM, signal.SIGHUP)
    with answered(ending, lambda number: sys.exit(128 + number)):
        what, without, after = _proven(args)
    kernel = state(calls(["uretprobe"])[0])
    if args.json:
        print(json.dumps(_document(args, what, kernel, without, after), indent=2))
    else:
        _show(args, what, kernel, without, after)
    if isinstance(after, Unasked):
        return _NOT_ASKED
    return 0 if after.lived else 1


def _proven(args: argparse.Namespace) -> "tuple[str, Proof | Unasked, Proof | Unasked]":
    """Return what was probed, and how that ended without the shim and with it."""
    from shim.cli import runtime_option
    from shim.risk import prove

    if args.engine:
        return f"a container of {args.engine}", *prove.of_engine(args.engine)
    if args.runtime:
        path = runtime_option.named(args.runtime).path
        return f"a container of {path}", *prove.of_runtime(path, _profile(args.profile))
    return "a child", *prove.of_child(_profile(args.profile))


def _profile(name: str) -> dict[str, Any] | None:
    """Return a profile as it is flattened for a container here: Docker's, if none is named."""
    from shim import files
    from shim.engines.demonstration import docker_default
    from shim.health.trials import flattened
    from shim.profile.document import MAX_BYTES, read

    if not name:
        return docker_default()
    return flattened(read(files.read(name, MAX_BYTES), name))


def _show(
    args: argparse.Namespace,
    what: str,
    kernel: str,
    without: "Proof | Unasked",
    after: "Proof | Unasked",
) -> None:
    from shim.risk.sides import Unasked

    row("kernel", f"{os.uname().release}: uretprobe {kernel}", columns=80)
    if not args.engine:
        row("profile", args.profile or "Docker's default")
    print()
    found = (without, after)
    told = [("not asked", "-") if isinstance(each, Unasked) else _outcome(each) for each in found]
    print(table(["", *_SIDES], list(zip((what, "hits counted"), *told, strict=True))), end="")
    for name, side in zip(_SIDES, found, strict=True):
        if isinstance(side, Unasked):
            row(name, side.why, columns=80, width=_WIDTH)
        elif side.by:
            row(name, f"by {side.by}", columns=80, width=_WIDTH)
    if kernel in ("exempt", "absent"):
        print("This kernel kills nobody over uretprobe, so it lives either way.")
    elif not isinstance(without, Unasked) and without.lived:
        print("The profile allows uretprobe by itself: the shim has nothing to do.")


def _outcome(proof: "Proof") -> tuple[str, str]:
    died = f"died of {proof.signal}" if proof.signal.startswith("SIG") else proof.signal
    return "lives" if proof.lived else died, str(proof.hits)


def _document(
    args: argparse.Namespace,
    what: str,
    kernel: str,
    without: "Proof | Unasked",
    after: "Proof | Unasked",
) -> dict[str, Any]:
    return {
        "kernel": os.uname().release,
        "uretprobe": kernel,
        "what": what,
        "profile": None if args.engine else args.profile or "Docker's default",
        "without": without._asdict(),
        "with": after._asdict(),
    }
