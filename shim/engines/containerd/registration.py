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
from shim.engines.containerd.status import entries_of, names, status
from shim.engines.registration import Host, RegistrationPlan, add_default, dropin, executable
from shim.engines.registration.changes import Edit, content, edit
from shim.errors import ShimError

__all__ = [
    "activate", "install_options", "places", "plan", "removal", "status",
    "status_options", "uninstall_options", "without",
]  # fmt: skip

_STOCK = ("runc", "crun")


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
    drop_ins = config_file.drop_ins(file.path)
    if release >= (2,) and not set(drop_ins).isdisjoint(config_file.imports(file, drop_ins)):
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
    entries, default = entries_of(options, host)
    covers = executable.coverage(
        [*names(entries), options.runtime or NAME],
        default=bool(options.default) or default == NAME,
    )
    notes = dropin.absence(host, "containerd") + notes
    return RegistrationPlan(edits, notes, steps, covers, bool(options.default))


def _drop_in_edits(file: ConfigFile, wanted: Wanted, host: Host) -> list[Edit]:
    """Plan a file of our own under the first name that no other file overrules."""
    ours = config_file.drop_ins(file.path)
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
        config_dump.check(file, config_dump.cri(said), ours, wanted)


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
