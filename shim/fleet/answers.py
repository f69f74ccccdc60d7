"""A host's line of the journal, made of what its module has answered."""

from collections.abc import Mapping
from typing import Any

from shim.fleet.ansible import HostAnswer

_COPIED = ("files", "problems", "notes", "no_effect", "diff", "health", "run")


def of_facts(answer: HostAnswer) -> dict[str, Any]:
    """Return the line of a host that was asked for its facts."""
    line = _line(answer)
    if answer.what == "ok":
        facts = answer.result["ansible_facts"]["seccomp_shim"]
        return {**line, "result": "asked", "facts": facts}
    return line


def of_profiles(answer: HostAnswer, changed: str, unchanged: str) -> dict[str, Any]:
    """Return the line of what the module for profiles says, ``changed`` or ``unchanged``."""
    copied = {key: answer.result[key] for key in _COPIED if answer.result.get(key)}
    diff = copied.get("diff")
    if isinstance(diff, Mapping):
        copied["diff"] = diff.get("prepared", "")
    line = {**_line(answer), **copied}
    if answer.what == "ok":
        line["result"] = changed if answer.result.get("changed") else unchanged
    elif (copied.get("health") or {}).get("regressions"):
        line["result"] = "regressed"
    return line


def _line(answer: HostAnswer) -> dict[str, Any]:
    return {"host": answer.host, "result": answer.what, "reason": answer.reason}
