"""Engines told of us, or told no more, as the verbs install and uninstall do."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from shim.engines import registration
from shim.engines.registration import changes
from shim.errors import ShimError

# The edits, what is to be said, and what is left to the admin.
_Done = tuple[list[changes.Edit], list[str], list[str]]


class _Options(argparse.ArgumentParser):
    """What would end the process is an error like any other."""

    def error(self, message: str) -> NoReturn:
        """Raise a ShimError."""
        raise ShimError(message, subject=self.prog)


def registered(
    engines: Mapping[str, Sequence[str]], *, present: bool, check: bool
) -> dict[str, Any]:
    """Tell each engine of us, or no more; ``engines`` are the verb's words for each.

    Gives ``{"changed", "diff", "notes": [line], "next_steps": [line]}``; ShimError where an engine
    cannot be told: those before it have been.
    """
    answer: dict[str, Any] = {"changed": False, "diff": "", "notes": [], "next_steps": []}
    for name, words in engines.items():
        if name not in registration.ENGINES:
            known = ", ".join(registration.ENGINES)
            raise ShimError("is no engine that is known here", subject=name, hint=f"knows: {known}")
        edits, notes, steps = (_tell if present else _untell)(name, words, check)
        shown = changes.diff(edits)
        answer["changed"] |= bool(shown)
        answer["diff"] += shown
        answer["notes"] += [f"{name}: {line}" for line in notes]
        answer["next_steps"] += [f"{name}: {line}" for line in steps]
    return answer


def recorded() -> list[str]:
    """Return the engines that have been told of us."""
    state = registration.this_host().state
    empty = changes.Record({}, ())
    return [name for name in registration.ENGINES if changes.recorded(name, state) != empty]


def _tell(name: str, words: Sequence[str], check: bool) -> _Done:
    host, engine = registration.this_host(), registration.load(name)
    parser = _Options(prog=name, add_help=False)
    engine.install_options(parser)
    options = parser.parse_args(list(words))
    plan = engine.plan(options, host)
    notes = [*registration.test_is_on(), *plan.notes]
    if not check:
        changes.apply(name, plan.edits, engine.without, host.state, host.log, default=plan.default)
        notes += engine.activate(options, host)
    covers = plan.coverage
    notes += [f"covered: {covers.covered}", f"not covered: {covers.left_out}"]
    return plan.edits, notes, plan.next_steps


def _untell(name: str, words: Sequence[str], check: bool) -> _Done:
    host, engine = registration.this_host(), registration.load(name)
    parser = _Options(prog=name, add_help=False)
    engine.uninstall_options(parser)
    options = parser.parse_args(list(words))
    places = engine.places(options, host)
    edits = changes.rolling_back(name, places, engine.without, host.state)
    edits, notes = engine.removal(options, host, edits)
    if not check:
        changes.roll_back(name, edits, host.state, host.log)
        notes = [*notes, *engine.activate(options, host)]
    return edits, notes, []
