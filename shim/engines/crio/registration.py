"""CRI-O: a runtime handler, or hooks; never the stage precreate, with which it does not start.

No CRI-O has run with this here: Debian has none. What is written follows crio.conf(5) and the
sources of version 1.37.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shim.engines import toml
from shim.engines.crio import config
from shim.engines.crio.config import HOOKS, NAME, TABLE
from shim.engines.crio.status import BY_HOOKS, status
from shim.engines.registration import (
    Host,
    RegistrationPlan,
    add_default,
    dropin,
    executable,
    hooks_dir,
)
from shim.engines.registration.changes import Edit, content, edit
from shim.errors import ShimError

__all__ = [
    "activate", "install_options", "places", "plan", "removal", "status",
    "status_options", "uninstall_options", "without",
]  # fmt: skip

_HOOKS_DEFAULT = ["/usr/share/containers/oci/hooks.d"]


def install_options(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the way, and whether pods without a RuntimeClass are covered, too."""
    parser.add_argument(
        "--way",
        choices=("runtime", "hooks"),
        default="runtime",
        help="runtime (default): a handler with the wrapper, for pods of a RuntimeClass; covers "
        "exec. hooks: all pods, whatever their handler; exec is not covered",
    )
    which = parser.add_mutually_exclusive_group()
    add_default(which, "make the handler the default one: pods need no RuntimeClass then")
    executable.add_option(which, "handler")


def uninstall_options(parser: argparse.ArgumentParser) -> None:
    """Add how to do it all the same."""
    executable.add_force(parser)


def status_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""
    del parser


def plan(options: argparse.Namespace, host: Host) -> RegistrationPlan:
    """Plan one drop-in file, and what else it takes: the hooks' files, or a script."""
    ours = {path: data for path in config.paths(host) if (data := content(path)) is not None}
    if len(ours) > 1:
        raise ShimError("are both there", subject=", ".join(map(str, ours)))
    runtime = config.read(host)
    now = "".join(data.decode() for data in ours.values()) or dropin.header("crio")
    steps = ["restart CRI-O when it suits (running containers go on)"]
    if options.way == "hooks":
        if options.default or options.runtime:
            option = "--default" if options.default else "--runtime"
            raise ShimError(f"{option} is for --way runtime: hooks hold for every handler")
        if config.our_handlers(toml.parse(now.encode(), "")):
            executable.refusal(config.pods(host), config.started(host), None)
        directories = [f for f in runtime.get("hooks_dir", _HOOKS_DEFAULT) if f != HOOKS]
        wanted = {"hooks_dir": [*directories, HOOKS]}
        text = toml.table(TABLE, wanted)
        if left := without(config.paths(host)[0], now.encode(), None):
            text = toml.append(left.decode(), text)
        notes = ["exec is not covered: no hook runs for it (--way runtime does)"]
        edits = hooks_dir.edits(
            host.path(HOOKS), host, {"seccomp-shim-hook": [], "seccomp-shim-verify": []}
        )
        edits += _placed(host, dropin.header("crio") + text, {"hooks_dir": wanted["hooks_dir"]})
        return RegistrationPlan(edits, dropin.absence(host, "crio") + notes, steps, BY_HOOKS)
    now = dropin.without_bare_header(toml.without_key(now, (*TABLE, "hooks_dir")), TABLE)
    text, edits, wanted_values, notes = _handler(options, runtime, now, host)
    if not options.default and not options.runtime:
        steps += executable.steps(NAME)
    edits += hooks_dir.edits(host.path(HOOKS), host, {})
    edits += _placed(host, text, wanted_values)
    document = toml.parse(text.encode(), "")
    default = toml.look_up(document, (*TABLE, "default_runtime")) == NAME
    covers = executable.coverage(list(config.our_handlers(document)), default=default)
    notes = dropin.absence(host, "crio") + notes
    return RegistrationPlan(edits, notes, steps, covers, bool(options.default))


def _placed(host: Host, text: str, wanted: dict[str, Any]) -> list[Edit]:
    """Plan a file of our own under the first name that no other file overrules.

    ShimError: none is; it names the files that say otherwise.
    """
    error: ShimError | None = None
    for path in config.paths(host):
        said = config.read(host, {path: text.encode()})
        wrong = next((key for key in wanted if config.said(said, key) != wanted[key]), None)
        if wrong is None:
            kept = {each: text.encode() if each == path else None for each in config.paths(host)}
            return [edit(each, data) for each, data in kept.items()]
        error = error or ShimError(
            f"{wrong} is something else all the same: another file is read after ours",
            subject=", ".join(config.behind(path, wrong.rpartition("/")[2])),
            hint="take it out of there, or give that file a name that sorts before, and try again",
        )
    raise error or ShimError("no file can be named")


def places(options: argparse.Namespace, host: Host) -> list[Path]:
    """Return the files of our own that may be there."""
    del options
    scripts = executable.places(host, "crio", host.bin)
    return [*config.paths(host), *hooks_dir.places(host.path(HOOKS)), *scripts]


def without(path: Path, now: bytes, original: bytes | None) -> bytes | None:
    """Take our entries out of the drop-in file; hooks' files and scripts are ours whole."""
    del original
    if path.suffix == ".json" or executable.is_ours(str(path)):
        return None
    document = toml.parse(now, str(path))
    runtime = config.runtime(document, path)
    ours = []
    if runtime.get("default_runtime") == NAME:
        ours.append((*TABLE, "default_runtime"))
    if HOOKS in runtime.get("hooks_dir", []):
        ours.append((*TABLE, "hooks_dir"))
    text = now.decode()
    for name in config.our_handlers(document):
        text = toml.without_table(text, (*TABLE, "runtimes", name))
    return dropin.without(path, text.encode(), "crio", ours)


def removal(
    options: argparse.Namespace, host: Host, edits: Sequence[Edit]
) -> tuple[list[Edit], list[str]]:
    """Refuse while pods have our handler, unless ``--force`` is given."""
    pods, started = config.pods(host), config.started(host)
    return executable.removal(pods, started, options, edits, "CRI-O")


def activate(options: argparse.Namespace, host: Host) -> list[str]:
    """Do nothing: a reload reads some tables again and others not, and says so only in its log."""
    del options, host
    return []


def _handler(
    options: argparse.Namespace, runtime: dict[str, Any], now: str, host: Host
) -> tuple[str, list[Edit], dict[str, Any], list[str]]:
    """Return the file's text with a handler that has another program, and what comes with it.

    It is like the default one, or the one that was asked for: then it has that name, too.
    """
    handlers = {k: v for k, v in runtime.get("runtimes", {}).items() if k != NAME}
    default = str(runtime.get("default_runtime") or "")
    if not default or default == NAME:
        known = [each for each in ("crun", "runc") if each in handlers]
        here = [each for each in ("crun", "runc") if _there(host, each)]
        if not known and not here:
            raise ShimError("CRI-O has neither crun nor runc here", hint="install one of them")
        default = (known or here)[0]
    name = options.runtime or default
    if name not in handlers and name not in {default, "crun", "runc"}:
        raise ShimError(f"CRI-O has no handler {name}", subject=str(host.path(config.DIRECTORY)))
    model, program = config.handler(name, handlers, default, host)
    if model.get("runtime_type", "oci") not in {"", "oci"}:
        raise ShimError(
            f"CRI-O's handler {name} is no OCI runtime, which cannot be stood in front of",
            hint="see --way hooks",
        )
    path, edits = executable.program(host, "crio", name, program, host.bin)
    own = options.runtime or NAME
    where = (*TABLE, "runtimes", own)
    table = {**model, "runtime_path": path, "runtime_type": "oci"}
    if options.default:
        now = toml.with_value(now, (*TABLE, "default_runtime"), NAME)
    text = toml.append(toml.without_table(now, where), toml.table(where, table))
    wanted = {f"runtimes/{own}": path} | ({"default_runtime": NAME} if options.default else {})
    notes = [f"{own} calls {program}, as CRI-O's {name} does"]
    return text, edits, wanted, notes


def _there(host: Host, name: str) -> bool:
    return bool(host.program(name)) or os.access(host.path(f"{config.PACKAGED}/{name}"), os.X_OK)
