"""fleet facts, plan, apply, rollback: what is asked before, shown meanwhile, and told after."""

import argparse
import getpass
import json
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from shim.cli.output import agreed, write_diff
from shim.cli.signals import answered
from shim.errors import ShimError, counted, printable

if TYPE_CHECKING:
    from shim.fleet.ansible import AnsibleOptions
    from shim.fleet.rollout import RolloutListener, RolloutOutcome, Rules
    from shim.fleet.store import Store


def run(args: argparse.Namespace) -> int:
    """Do it; 0 done, 1 something is wrong with hosts, 130 interrupted."""
    from shim.fleet import store
    from shim.fleet.ansible import hosts
    from shim.fleet.rollout import Interrupted

    way = _way(args)
    names = hosts(way)
    with store.opened(args.state or store.directory()) as opened, _interruptible() as cancelled:
        progress = Progress(args)
        try:
            outcome = _start(args, opened, way, names, progress.tell(cancelled))
        except Interrupted as interrupted:
            progress.clear()
            again = f"--resume goes on with run {interrupted}"
            print(f"seccomp-shim {args.verb}: interrupted; {again}", file=sys.stderr)
            return 130
        if outcome is None:
            return 1
        progress.clear()
        return _end(args, outcome)


def _start(
    args: argparse.Namespace,
    opened: "Store",
    way: "AnsibleOptions",
    names: list[str],
    tell: "RolloutListener",
) -> "RolloutOutcome | None":
    """Begin what was asked for; None: the user does not want it after all."""
    from shim.fleet import rollout

    if args.resume is not None:
        return _resume(args, opened, way, tell)
    if args.subverb == "facts":
        options = {"extra_paths": args.extra_path, "homes": args.homes}
        return rollout.ask_facts(opened, way, names, options, tell)
    if args.subverb == "plan":
        from shim.profile.enosys_edit import checked

        options = {
            "when": args.when,
            "paths": args.path,
            "homes": args.homes,
            "override_deny": args.override_deny,
            "enosys": list(checked(args.enosys)),
            "force": args.force,
        }
        return rollout.plan(opened, way, names, options, tell)
    rules = _rules(args)
    if args.subverb == "apply":
        made = opened.found(args.plan, "plan")
        hosts = rollout.planned(made, names)
        if hosts:
            sizes = [str(len(each)) for each in rollout.divided(opened, made, hosts, rules)]
            shown = ", ".join(sizes[:5]) + (", ..." if len(sizes) > 5 else "")
            question = f"Change profiles on {counted(len(hosts), 'host')}"
            question += f", in batches of {shown}?" if len(sizes) > 1 else "?"
            if not agreed(question, yes=args.yes):
                return None
        return rollout.apply(opened, way, names, made, rules, tell)
    applied = opened.found(args.id, "apply") if args.id else rollout.last_change(opened, names)
    if not agreed(f"Roll back run {applied.id}?", yes=args.yes):
        return None
    return rollout.roll_back(opened, way, names, applied, rules, tell)


def _resume(
    args: argparse.Namespace, opened: "Store", way: "AnsibleOptions", tell: "RolloutListener"
) -> "RolloutOutcome":
    from shim.fleet.rollout import AGAIN
    from shim.fleet.store import wants

    found = opened.found(args.resume, args.subverb)
    if not any(wants(found.lines, each) for each in found.hosts):
        raise ShimError("has come to its end on every host", subject=f"run {found.id}")
    return AGAIN[args.subverb](opened, way, opened.resume(found), tell)


def _way(args: argparse.Namespace) -> "AnsibleOptions":
    from shim.fleet.ansible import AnsibleOptions

    if {"--check", "-C"} & set(args.ansible):
        raise ShimError("fleet plan is what changes nothing", subject="--check")
    asked = {
        option: getpass.getpass(f"{what} password: ")
        for option, what in (("--ask-pass", "SSH"), ("--ask-become-pass", "sudo"))
        if getattr(args, option[2:].replace("-", "_"))
    }
    inventory, become = tuple(args.inventory), not args.no_become
    return AnsibleOptions(
        inventory, args.limit, args.forks, become, args.timeout, args.ansible, asked
    )


def _rules(args: argparse.Namespace) -> "Rules":
    from shim.fleet.batches import percentage, serial
    from shim.fleet.rollout import Rules

    canary = 0
    if args.subverb == "apply":  # what is wrong with a change shows on one host as well as on all
        canary = args.canary or (0 if args.serial else 1)
    return Rules(
        canary=canary,
        serial=serial(args.serial or "100%"),
        max_fail=percentage(args.max_fail),
        auto_rollback=getattr(args, "auto_rollback", False),
        verify=not args.no_verify,
    )


@contextmanager
def _interruptible() -> "Iterator[Any]":
    """Turn ctrl-C and SIGTERM into what can be asked about: whether there was one."""
    asked = threading.Event()
    with answered((signal.SIGINT, signal.SIGTERM), lambda _: asked.set()):
        yield asked.is_set


class Progress:
    """What is shown while hosts are at work: a line for each that has ended, and a last one."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._json = args.json
        self._live = sys.stderr.isatty()
        self._total = self._ended = 0
        self._at_work: list[str] = []

    def tell(self, cancelled: Any) -> "RolloutListener":
        """Return whom a run has to tell."""
        from shim.fleet.rollout import RolloutListener

        return RolloutListener(self._begin, self._batch, self._begun, self._line, cancelled)

    def clear(self) -> None:
        """Take the last line away."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _begin(self, ident: str, total: int) -> None:
        self._total, self._ended = total, 0
        print(f"run {ident}: {counted(total, 'host')}", file=sys.stderr)

    def _batch(self, number: int, count: int, hosts: int) -> None:
        self.clear()
        print(f"batch {number} of {count}: {counted(hosts, 'host')}", file=sys.stderr)

    def _begun(self, host: str) -> None:
        self._at_work.append(host)
        self._show()

    def _line(self, line: Mapping[str, Any]) -> None:
        host = str(line["host"])
        if host in self._at_work:
            self._at_work.remove(host)
            self._ended += 1
        self.clear()
        if self._json:
            print(json.dumps(line), flush=True)
        else:
            result, text = described(line)
            print(printable(f"{host:20}  {result:13}  {text}").rstrip(), flush=True)
        self._show()

    def _show(self) -> None:
        if self._live and self._at_work:
            more = "" if len(self._at_work) <= 3 else f" and {len(self._at_work) - 3} more"
            names = printable(", ".join(self._at_work[:3]))
            done = f"{self._ended} of {counted(self._total, 'host')}"
            sys.stderr.write(f"\r\x1b[K{done}; {names}{more}")
            sys.stderr.flush()


def described(line: Mapping[str, Any]) -> tuple[str, str]:
    """Put a host's line into words: what it is called, and what there is to say."""
    from shim.fleet.report import judged

    result = str(line["result"])
    if result == "asked":
        return judged(line["facts"])
    if line["reason"]:
        return result, str(line["reason"])
    files = [each for each in line.get("files", ()) if each["result"] != "left alone"]
    text = counted(len(files), "file") if files else ""
    idle = [each for each in files if each.get("effect") in ("none", "some")]
    if idle:
        text += f", {idle[0]['reason']}"
    left = [each for each in line.get("files", ()) if each["result"] == "left alone"]
    if left:
        text += f"{', ' * bool(text)}{len(left)} left alone: {left[0]['reason']}"
    return result, text


def _end(args: argparse.Namespace, outcome: "RolloutOutcome") -> int:
    """Say what came of it."""
    from shim.fleet.store import WANTING

    if getattr(args, "diff", False) and not args.json:
        _diffs(outcome)
    results = [str(line["result"]) for line in outcome.lines.values()]
    counts = {each: results.count(each) for each in dict.fromkeys(results)}
    what = ", ".join(f"{number} {result}" for result, number in counts.items())
    print(f"run {outcome.run}: {what or 'no host'}", file=sys.stderr)
    if outcome.stopped:
        print(f"seccomp-shim {args.verb}: stopped: {printable(outcome.stopped)}", file=sys.stderr)
    back = outcome.rolled_back
    if back is not None:
        undone = sum(line["result"] == "rolled back" for line in back.lines.values())
        print(
            f"run {back.run}: {counted(undone, 'host')} of the batch rolled back", file=sys.stderr
        )
    steps = {line["no_effect"][-1] for line in outcome.lines.values() if line.get("no_effect")}
    for step in sorted(steps):
        print(f"seccomp-shim {args.verb}: {printable(step)}", file=sys.stderr)
    if args.subverb == "plan" and "would change" in counts:
        words = [word for each in args.inventory for word in ("-i", each)]
        words += ["--state", args.state] if args.state else []
        print(f"carry it out: seccomp-shim fleet apply {shlex.join(words)}", file=sys.stderr)
    return 1 if outcome.stopped or any(each in (*WANTING, "regressed") for each in results) else 0


def _diffs(outcome: "RolloutOutcome") -> None:
    """Show the changes; those that are alike on several hosts once."""
    alike: dict[str, list[str]] = {}
    for host, line in outcome.lines.items():
        if line.get("diff"):
            alike.setdefault(str(line["diff"]), []).append(host)
    for diff, hosts in alike.items():
        print(f"\n{printable(', '.join(hosts))}:")
        write_diff(diff, escaped=True)
