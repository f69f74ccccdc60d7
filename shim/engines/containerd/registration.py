"""containerd: a runtime handler of its CRI service, for Kubernetes; ``ctr`` needs none.

containerd 1.x takes a plugin's section of an imported file in place of the main file's, and once a
file names any handler it forgets its built-in ``runc`` (both seen in ``containerd config dump`` of
1.6.20 and 1.7.24; 2.1.9 merges both). So the tables go into the main file, unless containerd is 2.x
and that file imports the directory conf.d.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shim.engines import toml
from shim.engines.containerd import config_dump, config_file
from shim.engines.containerd.config_file import CRI, NAME, PROGRAM, RUNC, ConfigFile, Wanted
from shim.engines.registration import Host, RegistrationPlan, add_default, dropin, executable
from shim.engines.registration.changes import Edit, content, edit
from shim.engines.registration.status import EngineStatus, StatusEntry
from shim.errors import ShimError

_STOCK = ("runc", "crun")


class ContainerdStatus(EngineStatus):
    """containerd's."""

    DOCUMENT = (
        "engine present registered entries default covers not_covered covers_all unseen in_use "
        "running known problems notes"
    )


def install_options(parser: argparse.ArgumentParser) -> None:
    """Add where the file is, and which pods are covered."""
    _add_config(parser)
    way = parser.add_mutually_exclusive_group()
    add_default(way, "make the handler the default one: pods need no RuntimeClass then")
    executable.add_option(way, "handler")


def uninstall_options(parser: argparse.ArgumentParser) -> None:
    """Add where the file is, and to do it all the same."""
    _add_config(parser)
    executable.add_force(parser)


def status_options(parser: argparse.ArgumentParser) -> None:
    """Add where the file is."""
    _add_config(parser)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=os.path.abspath,
        metavar="FILE",
        help=f"containerd's configuration (default: {config_file.CONFIG})",
    )


def plan(options: argparse.Namespace, host: Host) -> RegistrationPlan:
    """Plan a handler that is like the default one but for its program, or another program."""
    release = config_dump.release(host)
    file = config_file.read(config_file.main(options, host), 3 if release >= (2,) else 2)
    if {"cri", *CRI.values()} & set(
        map(str, toml.a_list(file.document, "disabled_plugins", file.path))
    ):
        raise ShimError(
            "disables the CRI service, which alone has handlers",
            subject=str(file.path),
            hint=f"ctr takes --runc-binary {host.executable('seccomp-shim-runc')} without any",
        )
    if release < (2,):
        config_file.refuse_replaced(file)
    name, model, notes = _model(options, file, host)
    program = str(toml.look_up(model, PROGRAM) or "runc")
    path, edits = executable.program(host, "containerd", name, program, host.bin)
    handler = {"runtime_type": RUNC, **model}
    handler["options"] = {**toml.a_table(model, ("options",), file.path), "BinaryName": path}
    wanted = Wanted({options.runtime or NAME: handler}, bool(options.default))
    if name not in _STOCK:
        notes.append(f"{options.runtime or NAME} calls {program}, as containerd's {name} does")
    if release >= (2,) and set(config_file.imports(file, _ours(file))) & set(_ours(file)):
        where = "a file of its own, which it imports"
        edits += _drop_in_edits(file, wanted, host)
    else:
        where = "tables of its main file"
        edits.append(config_file.main_edit(file, wanted))
        _confirm(file, edits[-1].after or b"", {}, wanted, host)
    version = ".".join(map(str, release)) or "of unknown version"
    notes.append(f"containerd {version}: the handler goes into {where}")
    steps = ["restart containerd when it suits (running containers go on)"]
    if not options.default and not options.runtime:
        steps += executable.steps(NAME)
    entries, default = _entries(options, host)
    covers = executable.coverage(
        [*_names(entries), options.runtime or NAME],
        default=bool(options.default) or default == NAME,
    )
    notes = dropin.absence(host, "containerd") + notes
    return RegistrationPlan(edits, notes, steps, covers, bool(options.default))


def _ours(file: ConfigFile) -> list[Path]:
    return config_file.drop_ins(file.path)


def _drop_in_edits(file: ConfigFile, wanted: Wanted, host: Host) -> list[Edit]:
    """Plan a file of our own under the first name that no other file overrules."""
    ours = _ours(file)
    there = {path: data for path in ours if (data := content(path)) is not None}
    if len(there) > 1:
        raise ShimError("are both there", subject=", ".join(map(str, there)))
    now = "".join(data.decode() for data in there.values())
    text = config_file.drop_in_text(file, wanted, now).encode()
    error: ShimError | None = None
    for path in ours:
        if path not in config_file.imports(file, ours):
            continue
        try:
            _confirm(file, file.text.encode(), {path: text}, wanted, host)
        except ShimError as overruled:
            error = error or overruled
            continue
        return [edit(each, text if each == path else None) for each in ours]
    raise error or ShimError("is not imported", subject=str(ours[0]))


def _confirm(
    file: ConfigFile, text: bytes, ours: dict[Path, bytes], wanted: Wanted, host: Host
) -> None:
    """Have containerd say what it makes of the result. ShimError: not what was meant."""
    said = config_dump.dump(file, text, ours, host)
    if said is not None:
        _check(file, config_dump.cri(said), ours, wanted)


def _check(file: ConfigFile, cri: dict[str, Any], ours: dict[Path, bytes], wanted: Wanted) -> None:
    for name, handler in wanted.handlers.items():
        found = toml.look_up(cri, ("runtimes", name, *PROGRAM))
        if found != toml.look_up(handler, PROGRAM):
            raise _overruled(file, ours, name, f"{name} calls {found or 'runc'}")
    default = cri.get("default_runtime_name")
    if wanted.default and default != NAME:
        raise _overruled(file, ours, "default_runtime_name", f"the default is {default}")


def _overruled(file: ConfigFile, ours: dict[Path, bytes], what: str, said: str) -> ShimError:
    """Return the error that names the files which are read after ours and say otherwise."""
    order = config_file.imports(file, list(ours))
    behind = order[max((order.index(path) for path in ours), default=-1) + 1 :]
    named = [str(path) for path in behind if what.encode() in (content(path) or b"")]
    return ShimError(
        f"{said} all the same: another file is read after ours",
        subject=", ".join(named) or str(file.path),
        hint="take it out of there, or give that file a name that sorts before, and try again",
    )


def places(options: argparse.Namespace, host: Host) -> list[Path]:
    """Return the main file, those of ours that it may import, and our scripts."""
    main = config_file.main(options, host)
    drop_ins = config_file.drop_ins(main)
    return [main, *drop_ins, *executable.places(host, "containerd", host.bin)]


def without(path: Path, now: bytes, original: bytes | None) -> bytes | None:
    """Take our tables out, and the default that names them; our scripts go whole."""
    if executable.is_ours(str(path)):
        return None
    return config_file.without(path, now, original)


def removal(
    options: argparse.Namespace, host: Host, edits: Sequence[Edit]
) -> tuple[list[Edit], list[str]]:
    """Refuse while pods have our handler, unless ``--force`` is given."""
    pods, started = config_dump.pods(options, host), config_dump.started(options, host)
    return executable.removal(pods, started, options, edits, "containerd")


def activate(options: argparse.Namespace, host: Host) -> list[str]:
    """Do nothing: containerd reads its configuration when it starts only."""
    del options, host
    return []


def status(options: argparse.Namespace, host: Host) -> EngineStatus:
    """Tell what the files say of us, and what containerd makes of them and has read."""
    entries, default = _entries(options, host)
    problems = [
        f"{each.file}: {each.path} is not there: its pods cannot start"
        for each in entries
        if not each.exists
    ]
    notes = [] if entries else ["ctr needs no registration: ctr run --runc-binary"]
    file = config_file.read(config_file.main(options, host), 2) if entries else None
    cri = config_dump.in_force(file, host) if file else None
    if file and cri:
        problems += _overruling(file, cri, entries, ours_default=default == NAME)
        default = cri.get("default_runtime_name")
    running = config_dump.running(options, host)
    problems += config_dump.unread(running, cri or {}, entries, default == NAME)
    known = running and config_dump.programs(running)
    blind = host.program("containerd") and running is None
    return ContainerdStatus(
        engine="containerd",
        present=host.program("containerd") is not None,
        registered=bool(entries),
        entries=entries,
        default=bool(entries) and default == NAME,
        coverage=executable.coverage(_names(entries), default=default == NAME),
        unseen=executable.unseen("containerd") if blind else [],
        in_use=bool(entries or known or config_dump.started(options, host)),
        running=None if running is None else True,
        known=None if running is None else not problems,
        problems=problems,
        notes=notes,
    )


def _entries(options: argparse.Namespace, host: Host) -> tuple[list[StatusEntry], str | None]:
    """Return our entries in the files, and the default that they name."""
    entries: list[StatusEntry] = []
    default = None
    main = config_file.main(options, host)
    for path in [main, *config_file.drop_ins(main)]:
        data = content(path)
        document = toml.parse(data, str(path)) if data is not None else {}
        for plugin in CRI.values():
            table = ("plugins", plugin, "containerd")
            default = toml.look_up(document, (*table, "default_runtime_name")) or default
            found = config_file.fronted(document, table)
            if ours := toml.look_up(document, (*table, "runtimes", NAME, *PROGRAM)):
                found[NAME] = str(ours)
            for name, program in found.items():
                entries += [
                    e for e in executable.entries(host, path, name, program) if e not in entries
                ]
    return entries, default


def _names(entries: list[StatusEntry]) -> list[str]:
    return [each.name for each in entries if each.handler]


def _overruling(
    file: ConfigFile, cri: dict[str, Any], entries: list[StatusEntry], *, ours_default: bool
) -> list[str]:
    """Say which other file is read after ours and says otherwise."""
    meant = {e.name: {"options": {"BinaryName": e.path}} for e in entries if e.handler}
    ours = {path: b"" for path in _ours(file) if content(path) is not None}
    try:
        _check(file, cri, ours, Wanted(meant, ours_default))
    except ShimError as error:
        return [f"{error.subject}: {error.message}"]
    return []


def _model(
    options: argparse.Namespace, file: ConfigFile, host: Host
) -> tuple[str, dict[str, Any], list[str]]:
    """Return the handler that ours is to be like, with its name, and what is to be said.

    It is the one that was asked for, else the default one as it is without us, else runc, else
    none: imports and defaults are known where containerd can be asked. ShimError: it is another
    shim's, which is called by no command line.
    """
    cri = config_dump.former(file, host)
    default = str(cri.get("default_runtime_name") or "runc")
    name = options.runtime or default
    handler = toml.a_table(cri, ("runtimes", name), file.path)
    kind = handler.get("runtime_type", RUNC if name == "runc" else None)
    if kind == RUNC:
        return name, _not_zero(handler), []
    told = f"is of the type {kind}, a shim of its own" if kind else "is not there"
    if options.runtime or options.default:
        raise ShimError(
            f"containerd's runtime {name} {told}: it cannot be stood in front of",
            subject=str(file.path),
            hint="install without --default; pods get the handler by a RuntimeClass"
            if options.default
            else "",
        )
    runc = toml.a_table(cri, ("runtimes", "runc"), file.path)
    return "runc", _not_zero(runc), [f"containerd's default {name} {told}: ours is like runc"]


def _not_zero(table: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is Go's zero value: it is what a missing key means."""
    inner = {k: _not_zero(v) if isinstance(v, dict) else v for k, v in table.items()}
    return {key: value for key, value in inner.items() if value not in ("", 0, False, [], {})}
