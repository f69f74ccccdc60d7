"""Install, uninstall and status of any engine, for the verbs, the host's agent and a node's pod.

A change is planned first (``plan_install``, ``plan_uninstall``), so that it can be shown; ``make``
writes the files, ``activate`` tells the running engine.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn

from shim.engines import registration
from shim.engines.registration import ENGINES, NOBODY, Coverage, Host, changes
from shim.engines.registration.changes import Edit
from shim.engines.registration.status import EngineStatus, unknown
from shim.errors import ShimError

Verb = Literal["install", "uninstall", "status"]


@dataclass(frozen=True, kw_only=True)
class PlannedChange:
    """An install or uninstall that is planned: its edits, what is to be said, and what is left.

    ``coverage`` is what is so once it is made. ``default``: it makes us the default runtime.
    """

    verb: Literal["install", "uninstall"]
    engine: str
    options: argparse.Namespace
    host: Host
    edits: list[Edit]
    notes: Sequence[str]
    next_steps: Sequence[str] = ()
    coverage: Coverage = NOBODY
    default: bool = False

    @property
    def diff(self) -> str:
        """Return the edits as a unified diff; empty: no file needs to be changed."""
        return changes.diff(self.edits)


class _Words(argparse.ArgumentParser):
    """What would end the process is an error like any other."""

    def error(self, message: str) -> NoReturn:
        """Raise a ShimError."""
        raise ShimError(message, subject=self.prog)


def options(name: str, verb: Verb, words: Sequence[str] = ()) -> argparse.Namespace:
    """Parse what the ``verb`` takes of an engine's own. ShimError: not its words, or no engine."""
    if name not in ENGINES:
        hint = f"knows: {', '.join(ENGINES)}"
        raise ShimError("is no engine that is known here", subject=name, hint=hint)
    parser = _Words(prog=name, add_help=False)
    getattr(registration.load(name), f"{verb}_options")(parser)
    return parser.parse_args(list(words))


def plan_install(name: str, options: argparse.Namespace, host: Host) -> PlannedChange:
    """Plan to have an engine run its containers through us. ShimError: it cannot be."""
    plan = registration.load(name).plan(options, host)
    notes = [*registration.test_is_on(), *plan.notes]
    if _not_ours(each.path for each in plan.edits):
        notes.append(
            "without root it is not seen what root has recorded and what runs here: as root "
            "the diff and what is said may be others"
        )
    return PlannedChange(
        verb="install",
        engine=name,
        options=options,
        host=host,
        edits=plan.edits,
        notes=notes,
        next_steps=plan.next_steps,
        coverage=plan.coverage,
        default=plan.default,
    )


def plan_uninstall(name: str, options: argparse.Namespace, host: Host) -> PlannedChange:
    """Plan to undo what was installed, and to take out what else is ours. ShimError: not now."""
    engine = registration.load(name)
    places = engine.places(options, host)
    planned = changes.rolling_back(name, places, engine.without, host.state)
    if theirs := _not_ours([each.path for each in planned] or places[:1]):
        raise ShimError(
            "this takes root: what was there before us is recorded for root's eyes only",
            subject=str(theirs),
            hint=f"sudo seccomp-shim uninstall {name}",
        )
    edits, notes = engine.removal(options, host, planned)
    return PlannedChange(
        verb="uninstall",
        engine=name,
        options=options,
        host=host,
        edits=edits,
        notes=[*notes, *_left(name, host, planned)],
    )


def make(change: PlannedChange) -> None:
    """Write the files, all or none. ShimError, OSError: nothing was changed."""
    name, host = change.engine, change.host
    if change.verb == "uninstall":
        changes.roll_back(name, change.edits, host.state, host.log)
        return
    without = registration.load(name).without
    changes.apply(name, change.edits, without, host.state, host.log, default=change.default)


def activate(change: PlannedChange) -> list[str]:
    """Tell the running engine, where that harms nobody; return what became of it."""
    return registration.load(change.engine).activate(change.options, change.host)


def status(name: str, options: argparse.Namespace, host: Host) -> EngineStatus:
    """Tell what is registered with an engine. ShimError, OSError: it cannot be told."""
    told = registration.load(name).status(options, host)
    return replace(told, problems=[*told.problems, *_lost(told, host)])


def status_or_problem(
    name: str, host: Host, options_given: argparse.Namespace | None = None
) -> EngineStatus:
    """Return an engine's status; that it cannot be told is a problem, too."""
    try:
        return status(name, options_given or options(name, "status"), host)
    except (ShimError, OSError) as error:
        return unknown(name, str(error))


def installed(host: Host) -> list[str]:
    """Return the engines that something was installed for, as it is recorded."""
    empty = changes.Record({}, ())
    return [name for name in ENGINES if changes.recorded(name, host.state) != empty]


def _not_ours(paths: Iterable[Path]) -> Path | None:
    """Return the first file that is not for who runs us to change, who is not root; None: none is.

    Only root sees what root has recorded of it, and what its engine runs.
    """
    for path in paths if os.geteuid() else ():
        try:
            mine = path.stat().st_uid == os.geteuid()
        except FileNotFoundError:
            mine = os.access(next(each for each in path.parents if each.exists()), os.W_OK)
        if not mine:
            return path
    return None


def _left(name: str, host: Host, planned: Iterable[Edit]) -> list[str]:
    """Name the files that we made and somebody else has edited: they are left."""
    changed = {str(each.path) for each in planned}
    return [
        f"{path} was edited since and is left where it is"
        for path, kept in changes.recorded(name, host.state).files.items()
        if kept.original is None and path not in changed and changes.content(Path(path)) is not None
    ]


def _lost(told: EngineStatus, host: Host) -> list[str]:
    """Say what is no longer as it was installed: somebody else has changed it since."""
    record = changes.recorded(told.engine, host.state)
    again = f"seccomp-shim install {told.engine}"
    if record.files and not told.registered:
        where = ", ".join(record.files)
        return [f"{where}: our entries are gone: {again}, or uninstall {told.engine}"]
    if record.default and not told.default and told.way != "hooks":
        return [
            f"it was made the default runtime, and somebody has changed that since: {again} "
            f"--default, or uninstall {told.engine}"
        ]
    return []
