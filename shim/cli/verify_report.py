"""What the verb verify says of a comparison: a table and a conclusion, or JSON."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from shim.cli.output import table

if TYPE_CHECKING:
    from shim.bpf.equivalence import Difference
    from shim.profile.loosening import Assessed
    from shim.profile.model import Loader


class Comparison(NamedTuple):
    """Two profiles compared under each of ``loaders``: by program, what differs and the opinion.

    ``unseen``: nothing does, but would if libseccomp knew all names. ``unknown`` are names that no
    kernel has a call for.
    """

    args: argparse.Namespace
    loaders: "list[Loader]"
    found: "dict[str, Difference]"
    assessed: "dict[str, list[Assessed]]"
    unseen: bool
    unknown: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Return the gravest: incomplete, other, catalogue, none."""
        if self.incomplete:
            return "incomplete"
        if not any(self.assessed.values()):
            return "none"
        good = all(each.accepted for assessed in self.assessed.values() for each in assessed)
        return "catalogue" if good else "other"

    @property
    def incomplete(self) -> str:
        """Say why the proof gave up; empty: it did not."""
        return next((each.reason for each in self.found.values() if not each.complete), "")

    def changes(self) -> "Iterator[tuple[Assessed, tuple[str, ...]]]":
        """Yield every change with the runtimes under which it is one."""
        under: dict[Assessed, list[str]] = {}
        for program, assessed in self.assessed.items():
            for each in assessed:
                under.setdefault(each, []).append(program)
        for each, programs in under.items():
            yield each, tuple(programs)


def show(outcome: Comparison) -> None:
    """Print every change, and what is proven."""
    from shim.bpf.program import action_name
    from shim.host.libseccomp import about_unknown

    rows = []
    for each, programs in outcome.changes():
        change = each.change
        note = f"{each.note}: {change.condition}" if change.condition else each.note
        if len(programs) < len(outcome.loaders):
            note += f" (under {', '.join(programs)} only)"
        verdicts = action_name(change.before), action_name(change.after)
        mark = "ok" if each.accepted else "!!"
        rows.append((mark, change.arch_name, change.nr_text, each.name or "-", *verdicts, note))
    if rows:
        print(table(("", "ARCH", "NR", "NAME", "BEFORE", "AFTER", "NOTE"), rows), end="")
    if told := about_unknown(outcome.unknown):
        print(told)
    if told := _dropped(outcome):
        print(told)
    if outcome.incomplete:
        print(f"incomplete: {outcome.incomplete}")
    print(_conclusion(outcome))


def _dropped(outcome: Comparison) -> str:
    """Say which runtimes here drop a name that counts as known; empty: none, or one was named."""
    from shim.catalog import load
    from shim.host.effect import effects_here

    if len(outcome.loaders) == 1 or outcome.args.for_libseccomp:
        return ""
    accepted = {each.name for each, _ in outcome.changes() if each.accepted}
    known = effects_here(call for name, call in load().items() if name in accepted)
    runtimes = list(dict.fromkeys(each for effect in known.values() for each in effect.drops))
    if not runtimes:
        return ""
    names = ", ".join(name for name, effect in known.items() if effect.drops)
    path = runtimes[0].partition(" (")[0]
    what = "drop" if len(runtimes) > 1 else "drops"
    return (
        f"{' and '.join(runtimes)} {what} {names}: verify --runtime {path} proves what is loaded "
        "there."
    )


def _conclusion(outcome: Comparison) -> str:
    from shim.abi import SECCOMP_RET_ALLOW

    verdict = outcome.verdict
    if verdict == "incomplete":
        return "Not proven: the list above may lack differences."
    if verdict == "none" and not outcome.unseen:
        return "Proven: no difference, no system call is answered otherwise."
    if verdict == "none":
        return (
            f"Proven: {_what(outcome)} would load no difference at all. The profiles differ, but "
            "only by names that this release does not know and drops."
        )
    changes = [each for each, _ in outcome.changes()]
    wrong = sum(not each.accepted for each in changes)
    if wrong:
        several = "s" * (wrong > 1)
        return f"Proven: {wrong} difference{several} beyond catalogue calls on x86-64 (!!)."
    names = {each.name for each in changes if each.change.after == SECCOMP_RET_ALLOW}
    enosys = {each.name for each in changes if _refuses(each)}
    idle = (
        "" if {each.name for each in changes} <= names | enosys else " that programs could notice"
    )
    allowed = f"newly allowed are {', '.join(sorted(names)) or 'no calls'}"
    if enosys:
        calls = "call" if len(enosys) == 1 else "calls"
        allowed += f", {len(enosys)} {calls} that no rule names get ENOSYS for another errno"
    return f"Proven: {allowed}, and nothing else differs{idle}."


def _refuses(each: "Assessed") -> bool:
    """Tell whether it is a call that no rule names, and that is refused by ENOSYS now."""
    from shim.profile.loosening import UNNAMED

    return each.note == UNNAMED


def _what(outcome: Comparison) -> str:
    [first, *_] = outcome.loaders
    if not outcome.args.runtime:
        return f"a runtime with libseccomp {first.libseccomp}"
    library = f" with libseccomp {outcome.args.for_libseccomp}" * bool(outcome.args.for_libseccomp)
    return f"{first.program} {first.version}{library}"


def report(outcome: Comparison) -> dict[str, object]:
    """Return the JSON document of a comparison."""
    from shim.bpf.program import action_name

    changes = []
    for each, programs in outcome.changes():
        change = each.change
        changes.append(
            {
                "arch": change.arch_name,
                "nr": [change.nr.low, change.nr.high],
                "nr_mask": change.nr.care or None,
                "name": each.name or None,
                "condition": change.condition,
                "before": action_name(change.before),
                "after": action_name(change.after),
                "accepted": each.accepted,
                "note": each.note,
                "runtimes": programs,
            }
        )
    return {
        "before": outcome.args.before,
        "after": outcome.args.after,
        "libseccomp": outcome.args.for_libseccomp or None,
        "runtimes": {
            loader.program: loader.version if outcome.args.runtime else None
            for loader in outcome.loaders
        },
        "complete": not outcome.incomplete,
        "reason": outcome.incomplete,
        "verdict": outcome.verdict,
        "differ_as_written": outcome.unseen or bool(changes),
        "unknown_names": outcome.unknown,
        "changes": changes,
    }
