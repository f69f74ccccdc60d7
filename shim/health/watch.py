"""The looks before and after a plan's changes, and what became worse in between."""

import os
from typing import Any

from shim.health import inspection
from shim.health.regressions import regressions
from shim.health.trials import chosen
from shim.transaction.plan import Plan

_MACHINE = "x86_64"  # whose filters and numbers we can read
_MADE = ("patched", "rolled back")


class Checkup:
    """Looks at once; ``tell`` looks again if something has changed."""

    def __init__(self, plan: Plan) -> None:
        self._trials, self._not_tried = chosen(plan.changes, plan.contents)
        if os.uname().machine != _MACHINE or not inspection.present():
            self._trials, self._not_tried = [], self._not_tried + len(self._trials)
        self._before = inspection.before(self._trials, self._not_tried)

    def tell(self, answer: dict[str, Any]) -> None:
        """Put ``health`` into the answer about a plan that was carried out.

        ``health`` is ``{"before", "after", "regressions": [line]}``; without changes ``after`` is
        None. Regressions are problems, too.
        """
        made = {each["file"] for each in answer["files"] if each["result"] in _MADE}
        health: dict[str, Any] = {"before": self._before, "after": None, "regressions": []}
        if made:
            trials = [each for each in self._trials if each.file in made]
            health["after"] = inspection.after(trials, self._not_tried, self._before)
            health["regressions"] = regressions(self._before, health["after"])
        answer["health"] = health
        answer["problems"] += health["regressions"]
