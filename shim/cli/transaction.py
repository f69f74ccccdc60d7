"""Carry out a plan's changes and say what came of it: for patch and rollback."""

import sys
from typing import TYPE_CHECKING

from shim.errors import counted, printable

if TYPE_CHECKING:
    from shim.transaction.plan import Plan
    from shim.transaction.store import State

_PAST = {"patch": "changed", "rollback": "rolled back"}


def settled(state: "State", verb: str) -> None:
    """Find out what killed runs left half done, and say so."""
    from shim.transaction.runs import recover

    for run in recover(state):
        states = [entry.state for entry in run.entries.values()]
        line = (
            f"run {run.id} was killed: {counted(states.count('new'), 'file is', 'files are')} new"
        )
        line += f", {states.count('old')} old"
        if "changed" in states:
            line += f", {states.count('changed')} somebody else's"
        print(f"seccomp-shim {verb}: {line}", file=sys.stderr)


def carry_out(plan: "Plan", state: "State", verb: str) -> int:
    """Make the changes; return 0, 1 if files were skipped, 2 if some failed."""
    from shim.cli.output import bar
    from shim.transaction.plan import run

    outcome = run(plan, state, bar(len(plan.changes)))
    for each in outcome.results:
        if each.what != "done":
            line = f"{each.change.path}: {each.what}: {each.reason}"
            print(f"seccomp-shim {verb}: {printable(line)}", file=sys.stderr)
    skipped, failed = outcome.count("skipped"), outcome.count("failed")
    line = f"{counted(outcome.count('done'), 'file')} {_PAST[plan.kind]}"
    line += f", {skipped} skipped" if skipped else ""
    line += f", {failed} failed" if failed else ""
    print(f"{line}; run {outcome.run}")
    if failed:
        return 2
    return 1 if skipped else 0
