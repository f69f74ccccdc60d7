"""The verb status: what is registered where, whether it works, and what went wrong lately."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shim import config
from shim.cli import engine_options
from shim.cli.output import row
from shim.errors import counted

if TYPE_CHECKING:
    from shim.engines.registration.status import EngineStatus
    from shim.logread import Recent

DESCRIPTION = """\
Tell for each engine whether seccomp-shim is registered, whether what the
entries name is still there, whether the running engine knows it, what this
kernel calls for, and which adjustments went wrong in the last 24 hours. Without
root it says what it cannot see."""

EPILOG = """\
examples:
  seccomp-shim status
  seccomp-shim status docker
  seccomp-shim status --json | jq .problems

exit statuses: 0 all is well, 1 something needs attention or could not be seen,
2 error."""

_SECONDS = 24 * 60 * 60
_SHOWN = 3
_TOLD = ("time", "event", "engine", "container", "runtime", "reason")
_COLUMNS = 80
_ID, _SHORT = 64, 12  # digits of a container's id, and as many as engines show


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = engine_options.add_verb(
        verbs,
        "status",
        run,
        _common_options,
        required=False,
        help="tell what is registered where, and whether it works",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Ask every engine, or the one named, and print."""
    from shim.engines.registration import ENGINES, test_is_on, this_host
    from shim.host import cache

    host = this_host()
    if args.engine:
        engine_options.refuse_missing(args, host)
    states = cache.states()
    engines = [_asked(name, args, states) for name in ([args.engine] if args.engine else ENGINES)]
    alarms, unread = _alarms(host.log)
    users = _users() if args.engine in (None, "podman") else []
    problems, unseen = _settings(registered=any(each.registered for each in engines))
    problems += [f"{each.engine}: {line}" for each in engines for line in each.problems]
    when = "24 hours" if alarms.whole else f"64 MiB of the log, since {alarms.since}"
    problems += _counts(alarms.events, f"the last {when}: {host.log}")
    for each in users:
        where = f"the last 24 hours, as the log of user {each['name']} says: {each['log']}"
        problems += _counts(each["events"], where)
    unseen += [f"{each.engine}: {line}" for each in engines for line in each.unseen]
    if unread:
        unseen.append(f"the log: {unread}")
    elif not alarms.whole:
        unseen.append(f"the log before {alarms.since}: it is too long, and only 64 MiB were read")
    if os.geteuid() != 0 and any(each.unseen for each in engines):
        unseen.append(
            f"root's log, which has what these start: {config.DEFAULTS['log']} or another"
        )
    unseen += [f"user {each['name']}: {each['unseen']}" for each in users if each["unseen"]]
    document = {
        "kernel": states,
        "test_syscall": test_is_on(),
        "engines": [each.document() for each in engines],
        "log": host.log,
        "alarms": alarms.events,
        "users": users,
        "unseen": unseen,
        "problems": problems,
    }
    if args.json:
        print(json.dumps(document, indent=2))
    else:
        _show(document, engines)
    return 1 if problems or unseen else 0


def _common_options(parser: argparse.ArgumentParser) -> None:
    # SUPPRESS: given before the engine's name, it must not be unset by the default here
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document"
    )


def _asked(name: str, args: argparse.Namespace, states: Mapping[str, str]) -> "EngineStatus":
    """Return one engine's status; what cannot be told is a problem, and the others still count."""
    from shim.engines import service
    from shim.engines.registration import this_host

    told = service.status_or_problem(name, this_host(), args if args.engine else None)
    dying = [call for call, state in states.items() if state == "filtered"]
    if not dying or not told.present or told.covers_all or told.registered is None:
        return told
    which = f" ({told.not_covered})" if told.registered else ""
    default = "" if name == "podman" else " --default"
    problem = (
        f"this kernel kills containers over {', '.join(dying)}{which}: seccomp-shim install "
        f"{name}{default}"
    )
    return replace(told, problems=[*told.problems, problem])


def _alarms(log: str) -> "tuple[Recent, str]":
    """Return what went wrong lately, and why that could not be read."""
    from shim.logread import Recent, recent

    try:
        return recent(log, _SECONDS), ""
    except OSError as error:
        return Recent([], "", True), f"{log}: {error.strerror}"


def _settings(*, registered: bool) -> tuple[list[str], list[str]]:
    """Return what is wrong with the settings, as root and as anybody else can tell it.

    Where no engine is ``registered`` no container waits for a line of the log.
    """
    settings, doubt = config.load()
    told = [f"the settings: {doubt}"] if doubt else []
    if os.geteuid() != 0:
        return [], told
    from shim import logread

    trouble = logread.trouble(settings) if registered else ""
    return [*told, *([trouble] if trouble else [])], []


def _counts(events: Sequence[dict[str, Any]], where: str) -> list[str]:
    """Count what went wrong by what it is: where only the settings did, all else was done."""
    starts = sum(event.get("event") == "config" for event in events)
    others = len(events) - starts
    told = [f"{counted(others, 'adjustment')} went wrong in {where}"] if others else []
    if starts:
        told.append(
            f"{counted(starts, 'start')} found an error in the settings and used the last good "
            f"ones, or the defaults, in {where}"
        )
    return told


def _users() -> list[dict[str, Any]]:
    """Return what root sees of users' own registrations and logs."""
    from shim.engines.podman import users

    return [each._asdict() for each in users.registered(_SECONDS)]


def _show(document: dict[str, Any], engines: "Sequence[EngineStatus]") -> None:
    states = ", ".join(f"{name} {state}" for name, state in document["kernel"].items())
    row("kernel", states)
    for line in document["test_syscall"]:
        row("test", line)
    for engine in engines:
        row(engine.engine, _summary(engine))
        for entry in engine.entries:
            there = "" if entry.exists else "  (not there)"
            row("", f"{entry.name}: {entry.path}{there}")
        if engine.registered:
            row("", f"covered: {engine.covers}")
            row("", f"not covered: {engine.not_covered}")
        for note in engine.notes:
            row("", note)
    for user in document["users"]:
        if user["file"]:
            row("user", f"{user['name']} has registered Podman for himself: {user['file']}")
    for who, events in [("log", document["alarms"])] + [
        (f"{user['name']}'s", user["events"]) for user in document["users"]
    ]:
        for alarm in events[-_SHOWN:]:
            row(who, _alarm(alarm), columns=_COLUMNS)
    for line in document["unseen"]:
        row("not seen", line)
    for problem in document["problems"]:
        row("ATTENTION", problem)


def _alarm(event: dict[str, Any]) -> str:
    """Return a line of the log as people read it; all of it is in the log."""
    told = {key: str(event[key]) for key in _TOLD if event.get(key)}
    name = told.get("container", "")
    if len(name) == _ID and name.isalnum():
        told["container"] = name[:_SHORT]
    if "time" in told:
        told["time"] = told["time"].partition(".")[0].removesuffix("Z") + "Z"
    return ", ".join(told.values())


def _summary(engine: "EngineStatus") -> str:
    if engine.registered is None:
        return "could not be told"
    if not engine.registered:
        return "not registered" if engine.present else "not installed"
    words = ["registered" if engine.covers_all else "registered for some containers only"]
    if engine.way == "hooks":
        words.append("by hooks")
    elif engine.default:
        words.append("the default runtime")
    if engine.running is False:
        words.append("not running")
    elif engine.known is not None:
        words.append("the running one knows it" if engine.known else "not known to the running")
    return ", ".join(words)
