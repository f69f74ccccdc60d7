"""All that is known of many hosts, as one document: for tables, JSON lines and the page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from shim import __version__
from shim.catalog import kernel_injected
from shim.fleet import known
from shim.fleet.store import WANTING, FleetRun, Store
from shim.fleet.verdict import VERDICTS, verdict
from shim.log import timestamp

KINDS = ("facts", "plan", "apply", "rollback")
_CHANGING = ("apply", "rollback")
# What a file holds after its result; by its effect where that is none.
_NOW = {"patched": "allows", "rolled back": "denies"}
_IDLE = "no effect"


def document(store: Store, names: Sequence[str], inventory: str) -> dict[str, Any]:
    """Tell of each of ``names`` and of all runs; see docs/fleet-hosts.md for the keys."""
    runs = store.runs(*KINDS)
    facts = known.facts(runs)
    changing = [run for run in runs if run.kind in _CHANGING]
    return {
        "made": timestamp(),
        "version": __version__,
        "inventory": inventory,
        "verdicts": VERDICTS,
        "hosts": [_host(each, facts, changing) for each in names],
        "runs": [_run(each) for each in runs],
    }


def judged(told: Mapping[str, Any], changed: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Return the verdict on a host's facts, and why."""
    return verdict(told, kernel_injected(), changed or {})


def files_now(changes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the files that were changed, each with its last result: patched or rolled back."""
    return {
        each["file"]: each["result"]
        for change in changes
        for each in change["files"]
        if each["result"] in _NOW
    }


def _now(changes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return what the files that were changed hold: allows, no effect or denies."""
    idle = {
        each["file"]: each["effect"] == "none" for change in changes for each in change["files"]
    }
    return {
        file: _IDLE if idle[file] and result == "patched" else _NOW[result]
        for file, result in files_now(changes).items()
    }


def _host(name: str, facts: known.Answers, changing: Sequence[FleetRun]) -> dict[str, Any]:
    answer, last = facts.answers.get(name), facts.tries.get(name)
    about: dict[str, Any] = {"host": name, "kernel": "", "calls": {}, "asked": ""}
    about |= {"libseccomp": [], "engines": [], "profiles": {}, "problems": [], "notes": []}
    changes = [_change(run, run.lines[name]) for run in changing if name in run.lines]
    about["changes"] = changes
    about["changed"] = list(files_now(changes).values()).count("patched")
    if answer is not None:
        about |= _host_report(answer, [each for each in changes if each["time"] > answer["time"]])
    if last is None:
        return about | {"verdict": "not asked", "why": "fleet facts has not asked it"}
    if last["result"] != "asked":
        about["problems"] = [*about["problems"], last["reason"]]
        return about | {"verdict": last["result"], "why": last["reason"]}
    if changes and changes[-1]["result"] in WANTING:
        about["problems"] = [*about["problems"], changes[-1]["reason"]]
        if changes[-1]["time"] > last["time"]:
            return about | {"verdict": changes[-1]["result"], "why": changes[-1]["reason"]}
    return about


def _host_report(answer: Mapping[str, Any], since: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tell what a host's facts say, with what was changed ``since`` they were told."""
    told = answer["facts"]
    changed = _now(since)
    word, why = judged(told, changed)
    # systemd's own filters are every host's, and never ours.
    profiles = [each for each in told["profiles"] or [] if each["format"] != "systemd"]
    counts = Counter(
        "denies by default" if changed.get(each["file"]) == "denies"
        else changed[each["file"]] if each["file"] in changed
        else str(each["state"])
        for each in profiles
    )  # fmt: skip
    return {
        "verdict": word,
        "why": why,
        "kernel": told["kernel"]["release"],
        "calls": known.states(told),
        "asked": answer["time"],
        "libseccomp": [f"{each['path']} {each['libseccomp'] or '?'}" for each in told["runtimes"]],
        "engines": [each["engine"] for each in told["engines"] if each["present"]],
        "profiles": dict(counts),
        "problems": [
            line for each in told["engines"] if each["present"] for line in each["problems"]
        ],
        "notes": told["notes"],
    }


def _change(run: FleetRun, line: Mapping[str, Any]) -> dict[str, Any]:
    files = [
        {key: str(each.get(key, "")) for key in ("file", "result", "reason", "effect")}
        for each in line.get("files", ())
    ]
    return {
        "run": run.id,
        "time": line["time"],
        "kind": run.kind,
        "result": line["result"],
        "reason": line["reason"],
        "files": files,
        "diff": line.get("diff", ""),
    }


def _run(run: FleetRun) -> dict[str, Any]:
    results = Counter(str(line["result"]) for line in run.lines.values())
    about = {"run": run.id, "kind": run.kind, "by": run.by, "time": run.time}
    return {**about, "ended": run.ended, "why": run.why, "hosts": dict(results)}
