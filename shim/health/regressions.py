"""What is worse than it was, from two looks."""

from collections.abc import Iterator, Mapping
from typing import Any

Inspection = Mapping[str, Any]


def regressions(before: Inspection, after: Inspection) -> list[str]:
    """Return a line for each engine, container and call that is worse in the second look.

    What was broken before is no regression, and neither is what was not looked at again.
    """
    return [*_engines(before, after), *_containers(before, after)]


def _engines(before: Inspection, after: Inspection) -> Iterator[str]:
    now = {each["engine"]: each for each in after["engines"]}
    gone = {"answers": False, "said": "it is not there"}
    for each in before["engines"]:
        found = now.get(each["engine"], gone)
        if each["answers"] and not found["answers"]:
            yield f"{each['engine']}: does not answer any more: {found['said']}"


def _containers(before: Inspection, after: Inspection) -> Iterator[str]:
    started = {_key(each) for each in before["containers"] if each["started"]}
    for each in after["containers"]:
        under = f" under {each['profile']}" if each["profile"] else ""
        if _key(each) in started and not each["started"]:
            yield f"{each['how']}: no container starts{under} any more: {each['reason']}"
        for name, call in each["calls"].items():
            if call["expected"] not in ("", call["verdict"]):
                told = f"{call['verdict']} for {name}, not {call['expected']}"
                yield f"{each['how']}: a container{under} has {told}"


def _key(container: Mapping[str, Any]) -> tuple[str, str]:
    return container["how"], container["profile"]
