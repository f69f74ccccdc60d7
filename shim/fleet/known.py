"""What is known of hosts from the runs so far."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from shim.errors import ShimError
from shim.fleet.store import WANTING, FleetRun, Store
from shim.profile.edit import worthwhile

# What of a profile patching is about; override_deny adds the last.
_TO_PATCH = {"denied-by-default", "conditional", "no-x86-64"}
_DENIED = "explicit-deny"
_UNCONCERNED = {
    "needed": "its kernel lets no profile deny the calls",
    "present": "its kernel has none of the calls",
}


class Answers(NamedTuple):
    """Each host's last answer, and the last line of all: perhaps it could not be reached since."""

    answers: dict[str, dict[str, Any]]
    tries: dict[str, dict[str, Any]]


def facts(runs: Iterable[FleetRun]) -> Answers:
    """Return what hosts have told in runs, the oldest first; other kinds are passed over."""
    answers: dict[str, dict[str, Any]] = {}
    tries: dict[str, dict[str, Any]] = {}
    asking = (run for run in runs if run.kind == "facts")
    for run in asking:
        for host, line in run.lines.items():
            tries[host] = line
            if line["result"] == "asked":
                answers[host] = line
    return Answers(answers, tries)


def states(told: Mapping[str, Any]) -> dict[str, str]:
    """Return the states of the kernel-injected calls from a host's facts."""
    return {name: str(each["state"]) for name, each in told["syscalls"].items()}


def nothing_to_do(told: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Say why a host need not even be asked for its plan; empty: it must be."""
    if options.get("enosys"):
        return ""  # facts do not tell which calls a profile names
    when, known = options["when"], states(told)
    calls = [name for name in known if worthwhile(known[name], when)]
    if not calls:
        return _UNCONCERNED[when]
    # What a plan names may have come since, and is a failure where it is not there.
    if options["paths"] or (options["homes"] and not told["homes"]):
        return ""
    found = {
        each["calls"].get(call, {}).get("verdict") for each in told["profiles"] for call in calls
    }
    if found & _TO_PATCH or (_DENIED in found and options["override_deny"]):
        return ""
    if _DENIED in found:
        return "its profiles deny the calls by name (--override-deny allows them)"
    return "none of its profiles denies the calls"


def kind(told: Mapping[str, Any], line: Mapping[str, Any]) -> tuple[object, ...]:
    """Return in what hosts differ as far as a roll-out goes: kernel, runtimes, engines, changes."""
    runtimes = sorted((each["path"], each["libseccomp"] or "") for each in told["runtimes"])
    engines = sorted(each["engine"] for each in told["engines"] if each["present"])
    files = sorted(each["before"] for each in line.get("files", []))
    return (sorted(states(told).items()), runtimes, engines, files)


def refuse_stale(made: FleetRun, hosts: Sequence[str], answers: Mapping[str, Any]) -> None:
    """Refuse a plan whose hosts have told newer facts than it was made from."""
    stale = [
        each
        for each in hosts
        if answers.get(each, {}).get("time") != made.lines[each].get("facts_of")
    ]
    if stale:
        more = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
        raise ShimError(
            f"is older than the facts of {stale[0]}{more}",
            subject=f"plan {made.id}",
            hint="fleet plan makes a new one",
        )


def rolled_back(store: Store, applied: FleetRun) -> set[str]:
    """Return the hosts on which a run's changes have been rolled back."""
    return {
        host
        for run in store.runs("rollback")
        if run.head["of"] == applied.id
        for host, line in run.lines.items()
        if line["result"] not in (*WANTING, "regressed")
    }
