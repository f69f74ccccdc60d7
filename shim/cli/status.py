"""The verb status: what is registered where, whether it works, and what went wrong lately."""

import argparse
import json
from typing import Any

from shim.cli import engineoptions
from shim.errors import ShimError, printable

DESCRIPTION = """\
Tell for each engine whether seccomp-shim is registered, whether what the
entries name is still there, whether the running engine knows it, what this
kernel calls for, and which adjustments went wrong in the last 24 hours."""

EPILOG = """\
examples:
  seccomp-shim status
  seccomp-shim status docker
  seccomp-shim status --json | jq .problems

exit codes: 0 all is well, 1 something needs attention, 2 error."""

_SECONDS = 24 * 60 * 60
_SHOWN = 3


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "status",
        help="tell what is registered where, and whether it works",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    engineoptions.add(
        parser, "status_options", required=False, description=DESCRIPTION, common=_common_options
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask every engine, or the one named, and print."""
    from shim.engines.registration import ENGINES, this_host
    from shim.host import cache

    host = this_host()
    states = cache.states()
    engines = [_asked(name, args, states) for name in ([args.engine] if args.engine else ENGINES)]
    alarms, unread = _alarms(host.log)
    problems = [f"{each['engine']}: {line}" for each in engines for line in each["problems"]]
    if alarms:
        problems.append(f"{len(alarms)} adjustments went wrong in the last 24 hours: {host.log}")
    document = {
        "kernel": states,
        "engines": engines,
        "log": host.log,
        "alarms": alarms,
        "problems": problems,
    }
    if args.json:
        print(json.dumps(document, indent=2))
    else:
        _show(document, unread)
    return 1 if problems else 0


def _common_options(parser: argparse.ArgumentParser) -> None:
    # SUPPRESS: given before the engine's name, it must not be unset by the default here
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document"
    )


def _asked(name: str, args: argparse.Namespace, states: dict[str, str]) -> dict[str, Any]:
    """Give one engine's status; what cannot be told is a problem, and the others still count."""
    from shim.engines.registration import load, this_host

    engine = load(name)
    options = args
    if not args.engine:
        parser = argparse.ArgumentParser()
        engine.status_options(parser)
        options = parser.parse_args([])
    try:
        told = engine.status(options, this_host())
    except (ShimError, OSError) as error:
        reason = str(error)
        return {"engine": name, "present": True, "registered": None, "problems": [reason]}
    dying = [call for call, state in states.items() if state == "filtered"]
    if dying and told["present"] and not told["registered"]:
        told["problems"].append(
            f"this kernel kills containers over {', '.join(dying)}: seccomp-shim install {name}"
        )
    return told


def _alarms(log: str) -> tuple[list[dict[str, Any]], str]:
    """Give what went wrong lately, and why that could not be read."""
    from shim.engines.alarms import recent

    try:
        return recent(log, _SECONDS), ""
    except OSError as error:
        return [], f"{log}: {error.strerror}"


def _show(document: dict[str, Any], unread: str) -> None:
    states = ", ".join(f"{name} {state}" for name, state in document["kernel"].items())
    _row("kernel", states)
    for engine in document["engines"]:
        _row(engine["engine"], _summary(engine))
        for entry in engine.get("entries", ()):
            there = "" if entry["exists"] else "  (not there)"
            _row("", f"{entry['name']}: {entry['path']}{there}")
        for note in engine.get("notes", ()):
            _row("", note)
    for alarm in document["alarms"][-_SHOWN:]:
        told = ("time", "event", "engine", "container", "runtime", "reason")
        _row("log", ", ".join(str(alarm[key]) for key in told if alarm.get(key)))
    if unread:
        _row("log", f"cannot be read: {unread}")
    for problem in document["problems"]:
        _row("ATTENTION", problem)


def _summary(engine: dict[str, Any]) -> str:
    if engine["registered"] is None:
        return "could not be told"
    if not engine["registered"]:
        return "not registered" if engine["present"] else "not installed"
    words = ["registered"]
    if engine.get("default"):
        words.append("the default runtime")
    if engine.get("running") is False:
        words.append("not running")
    elif engine.get("known") is not None:
        words.append("the running one knows it" if engine["known"] else "not known to the running")
    return ", ".join(words)


def _row(label: str, text: str) -> None:
    print(printable(f"{label:10} {text}"))
