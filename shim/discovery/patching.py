"""What a survey of a host's profiles has to be patched, as a plan."""

from collections.abc import Mapping

from shim.discovery.find import Survey
from shim.host.effect import Effect
from shim.transaction.plan import Plan, add, empty


def patching(survey: Survey, effects: Mapping[str, Effect] | None = None) -> Plan:
    """Plan to patch all files of a survey that may be changed."""
    plan = empty("patch", effects=effects)
    for file in survey.files:
        after = file.verdict.after
        if after is None:
            continue
        if file.kept:
            plan.refused.append((file.shown, file.kept))
            continue
        findings = [each for one in file.verdict.profiles for each in one.findings]
        add(plan, file.real, file.before, after, findings)
    return plan
