"""Engines told of us, or told no more, as the verbs install and uninstall do."""

from collections.abc import Mapping, Sequence
from typing import Any

from shim.engines import service
from shim.engines.registration import this_host


def registered(
    engines: Mapping[str, Sequence[str]], *, present: bool, check: bool
) -> dict[str, Any]:
    """Tell each engine of us, or no more; ``engines`` are the verb's words for each.

    Gives ``{"changed", "diff", "notes": [line], "next_steps": [line]}``; ShimError where an engine
    cannot be told: those before it have been.
    """
    answer: dict[str, Any] = {"changed": False, "diff": "", "notes": [], "next_steps": []}
    host = this_host()
    for name, words in engines.items():
        if present:
            planned = service.plan_install(name, service.options(name, "install", words), host)
        else:
            planned = service.plan_uninstall(name, service.options(name, "uninstall", words), host)
        notes = list(planned.notes)
        if not check:
            service.make(planned)
            notes += service.activate(planned)
        if present:
            covers = planned.coverage
            notes += [f"covered: {covers.covered}", f"not covered: {covers.left_out}"]
        answer["changed"] |= bool(planned.diff)
        answer["diff"] += planned.diff
        answer["notes"] += [f"{name}: {line}" for line in notes]
        answer["next_steps"] += [f"{name}: {line}" for line in planned.next_steps]
    return answer
