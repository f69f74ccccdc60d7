"""The pod's life: a job done step by step, and at the end the question whether to undo it."""

import argparse
import os
import signal
import threading
from collections.abc import Callable, Sequence

from shim import atomic, log
from shim.errors import ShimError, one_line
from shim.node import ROOT, STATE
from shim.node.daemonset import DaemonSet
from shim.node.jobs import Job, say

# A step that failed is repeated no sooner than this, whatever the job's own pause.
_FAILED_SECONDS = 30.0


def main(words: Sequence[str], payload: str) -> int:
    """Do the job that ``words`` name until SIGTERM; ``payload`` is the project in the image."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        job = _job(words, payload)
    except ShimError as error:
        say([str(error)])
        return 2
    daemonset = DaemonSet(os.environ.get("DAEMONSET", ""))
    daemonset.follow()
    said: list[str] | None = None
    while not stop.is_set():
        missing, failed = _tried(job.step)
        if missing != said:
            say(missing or ["ready"])
            _note(missing)
            said = missing
        stop.wait(max(job.pause, _FAILED_SECONDS) if failed else job.pause)
    _end(job, daemonset.gone(), daemonset.doubt)
    return 0


def _job(words: Sequence[str], payload: str) -> Job:
    from shim.node.profiles import Profiles
    from shim.node.root import NodeRoot
    from shim.node.wrapper import Removal, Wrapper

    parser = argparse.ArgumentParser(prog="node.py", description="Look after a node.")
    jobs = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    for name in ("install", "remove"):
        jobs.add_parser(name).add_argument("words", nargs=argparse.REMAINDER)
    profiles = jobs.add_parser("profiles")
    profiles.add_argument("--every", type=float, default=10, metavar="MINUTES")
    profiles.add_argument("directories", nargs="*", metavar="DIRECTORY")
    args = parser.parse_args(words)
    if args.job == "profiles":
        return Profiles(args.directories, args.every)
    kind = Wrapper if args.job == "install" else Removal
    return kind(NodeRoot(ROOT, payload), args.words)


def _end(job: Job, gone: bool | None, doubt: str) -> None:
    """Undo the job where the DaemonSet was removed; in doubt the node is left as it is."""
    if not gone:
        known = "the DaemonSet is still there"
        untold = f"it cannot be told whether the DaemonSet was removed: {doubt}"
        reason = known if gone is False else untold
        say([f"the node is left as it is: {reason}"])
        _tried(lambda: _logged(job, "node-kept", reason))
        return
    reason = "the DaemonSet was removed"
    left, _ = _tried(lambda: _logged(job, "node-removal", reason) + job.roll_back())
    done = "rolled back, but for what is left" if left else "rolled back"
    say([f"{reason}: {done}", *(f"left: {line}" for line in left)])


def _logged(job: Job, event: str, reason: str) -> list[str]:
    log.record(event, log=job.log, reason=reason)
    return []


def _tried(step: Callable[[], list[str]]) -> tuple[list[str], bool]:
    """Return what a step says is missing, or why it failed, in one line; and whether it did."""
    try:
        return step(), False
    except Exception as error:
        return [one_line(error)], True


def _note(missing: Sequence[str]) -> None:
    """Leave word for the readiness probe, whole or not at all."""
    atomic.write_atomic(STATE, "".join(f"{line}\n" for line in missing).encode())
