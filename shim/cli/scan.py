"""The verb scan: who would die of a probe, by the filters that processes really have."""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shim.cli.output import bar, row, table
from shim.errors import ShimError, counted

if TYPE_CHECKING:
    from shim.risk.outlook import Call, Outlook
    from shim.risk.scan import Group, Scan, ScannedProcess

DESCRIPTION = """\
Read the filters that the processes of this host really have, and tell who would
die if somebody attached a uretprobe now, who would not, and why. Nothing is
changed: a thread stands for about a tenth of a millisecond while its filters
are copied. Needs root."""

EPILOG = """\
outlooks:
  dies       of SIGSEGV where the filter answers with an error, else of SIGSYS
  undecided  it depends on the arguments or on a listener, or cannot be told
  denied     the call is answered with an error (an ordinary call, or uprobe, of
             which only the hit is lost)
  not read   why is told: traced by somebody else, does not stop, ...
  safe       unconfined, allowed by name or by us, or as all unknown calls are

A kernel that exempts a call from filters kills nobody over it: that is said
first, and the outlooks are those of a kernel that does not.

exit statuses: 0 nobody is at risk on this kernel, 1 somebody is, 2 error,
3 nobody is of those who were read, but not all could be

examples:
  seccomp-shim scan
  seccomp-shim scan --container web
  seccomp-shim scan --unit nginx
  seccomp-shim scan --pid 4711 --json | jq .processes_at_risk
  seccomp-shim scan --syscall mseal --syscall map_shadow_stack"""

_MARKS = {"dies": "!!", "undecided": "??", "denied": "!!", "unread": "--", "safe": "ok"}
_TOLD = {"unread": "not read"}
_PATIENCE = 1.0  # seconds until a bar is shown


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "scan",
        help="tell which running processes a probe would kill",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_target_options(parser)
    parser.add_argument(
        "--syscall",
        action="append",
        default=[],
        metavar="NAME",
        help="ask about this call instead of uretprobe and uprobe (may be given again)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--verbose", action="store_true", help="tell each process, and how long threads stood"
    )
    parser.set_defaults(run=run)


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say of whom to tell."""
    parser.add_argument(
        "--pid", type=int, action="append", metavar="N", help="look at this process alone"
    )
    parser.add_argument(
        "--container", default="", metavar="C", help="tell of this container (name or id) alone"
    )
    parser.add_argument(
        "--unit", default="", metavar="NAME", help="tell of this unit of systemd alone"
    )


def run(args: argparse.Namespace) -> int:
    """Scan and print; 1 if somebody is at risk on this kernel, 3 if that cannot be told of all."""
    from shim.risk.scan import calls, refuse_without_root, scan

    asked = calls(args.syscall)
    refuse_without_root()
    pids = args.pid
    if args.container:
        from shim.risk.containers import running

        pids = [*(pids or ()), *running(args.container).pids]
    if args.unit:
        from shim.risk import units

        pids = [*(pids or ()), *units.running(args.unit).pids]
    named = args.container or args.unit
    found = scan(asked, pids=pids, gone_is_error=not named, progress=_progress())
    if named and not found.groups:
        raise ShimError("it has ended", subject=named)
    if args.json:
        print(json.dumps(document(found), indent=2))
    else:
        show(found, verbose=args.verbose)
    if found.endangered():
        return 1
    return 3 if found.unread() else 0


def _progress() -> Callable[[int, int], None]:
    """Return what shows a bar once a scan takes long."""
    began = time.monotonic()
    shown: list[Callable[[int], None]] = []

    def show(done: int, total: int) -> None:
        if not shown and time.monotonic() - began > _PATIENCE:
            shown.append(bar(total, "process", "processes"))
        if shown:
            shown[0](done)

    return show


def show(found: "Scan", *, verbose: bool) -> None:
    """Print what was found for people."""
    states = ", ".join(f"{name} {state}" for name, state in found.states.items())
    row("kernel", f"{os.uname().release}: {states}", columns=80)
    row("", _about_kernel(found), columns=80)
    print()
    for call in found.calls:
        if call.name == "uprobe" and len(found.calls) > 1 and not found.decides(call.name):
            continue  # no kernel leaves it to filters; --syscall uprobe and --json have it
        _show_call(found, call, verbose=verbose)
    for engine in found.unnamed:
        print(f"{engine} did not answer in time: its containers go by their ids.")
    if verbose:
        threads, median, most = found.stops()
        print(
            f"{counted(threads, 'thread')} stood for {median} microseconds (median), {most} at "
            f"most; {found.seconds:.2f} s in all."
        )


def _about_kernel(found: "Scan") -> str:
    """Say whether anybody can die here, which is said first."""
    deciding = [call.name for call in found.calls if found.decides(call.name)]
    if deciding:
        doubt = " (or may: it could not be told)" if "unknown" in found.states.values() else ""
        return f"It leaves {' and '.join(deciding)} to filters{doubt}."
    names = [call.name for call in found.calls]
    how = (
        f"It lets {' and '.join(names)} pass every filter"
        if "exempt" in found.states.values()
        else f"It has no {' and no '.join(names)}"
    )
    return (
        f"{how}: nobody dies of that here. Below is what would be on a kernel that leaves it to "
        "filters."
    )


def _show_call(found: "Scan", call: "Call", *, verbose: bool) -> None:
    from shim.risk.outlook import GRAVITY

    rows: list[tuple[int, tuple[str, ...]]] = []
    counts: Counter[str] = Counter()
    for group in found.groups:
        parts: dict[Outlook, list[ScannedProcess]] = {}
        for one in group.seen:
            parts.setdefault(one.outlooks[call.name], []).append(one)
        for outlook, seen in parts.items():
            counts[outlook.outcome] += len(seen)
            rows += [
                (GRAVITY.index(outlook.outcome), _row(group, outlook, some))
                for some in ([[each] for each in seen] if verbose else [seen])
            ]
    if not rows:
        print("No process has a filter, and no container runs.")
        return
    rows.sort(key=lambda each: each[0])
    head = ("", "NAME", "ENGINE", "PID", call.name.upper(), "WHY", "IMAGE, PROFILE")
    print(table(head, [each for _, each in rows]), end="")
    now = " now" if found.decides(call.name) else ""
    told = {"dies": f"would die{now}", "unread": "not read"}
    parts_ = [f"{counts[each]} {told.get(each, each)}" for each in GRAVITY if counts[each]]
    print(f"{counted(counts.total(), 'process', 'processes')}: {', '.join(parts_)}.")


def _row(group: "Group", outlook: "Outlook", seen: "list[ScannedProcess]") -> tuple[str, ...]:
    first = seen[0].process
    known = group.known
    name = known.name if group.place.kind != "process" else first.name
    if known.pod:
        name = f"{known.pod}/{name}"
    about = [known.image, f"profile: {known.profile}" if known.profile else ""]
    if group.place.user:
        about.append(f"of user {group.place.user}")
    more = f" +{len(seen) - 1}" if len(seen) > 1 else ""
    told = _TOLD.get(outlook.outcome, outlook.outcome)
    return (
        _MARKS[outlook.outcome],
        name,
        known.engine or "-",
        f"{first.pid}{more}",
        f"{told} {outlook.signal}".strip(),
        outlook.why,
        ", ".join(filter(None, about)) or "-",
    )


def document(found: "Scan") -> dict[str, Any]:
    """Return the JSON document, which docs/scan.schema.json describes."""
    threads, median, most = found.stops()
    return {
        "kernel": os.uname().release,
        "calls": {
            call.name: {
                "nr": call.nr,
                "state": found.states[call.name],
                "decided_by_filters": found.decides(call.name),
            }
            for call in found.calls
        },
        "processes_at_risk": len(found.endangered()),
        "processes_at_risk_elsewhere": len(found.endangered(here=False)),
        "processes_unread": len(found.unread(here=False)),
        "groups": [_group(each) for each in found.groups],
        "engines_silent": found.unnamed,
        "threads_stopped": threads,
        "stopped_us": {"median": median, "max": most},
        "seconds": round(found.seconds, 4),
    }


def _group(group: "Group") -> dict[str, Any]:
    where, known = group.place, group.known
    return {
        "kind": where.kind,
        "engine": known.engine,
        "id": where.ident,
        "name": known.name or group.seen[0].process.name,
        "image": known.image,
        "profile": known.profile,
        "pod": known.pod,
        "pod_uid": where.pod,
        "user": where.user,
        "mechanism": known.mechanism,
        "processes": [_process(each) for each in group.seen],
    }


def _process(seen: "ScannedProcess") -> dict[str, Any]:
    process = seen.process
    return {
        "pid": process.pid,
        "pid_inside": process.inside,
        "started": process.started,
        "name": process.name,
        "uid": process.uid,
        "threads": process.threads,
        "mode": process.mode,
        "filters": [
            {
                "threads": each.threads,
                "instructions": [len(program) // 8 for program in each.programs],
            }
            for each in process.sets
        ],
        "calls": {name: outlook._asdict() for name, outlook in seen.outlooks.items()},
    }
