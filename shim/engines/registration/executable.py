"""An executable of ours that stands in front of one given runtime.

An engine that cannot give its runtimes arguments (containerd, CRI-O, Podman) is given a file of its
own for each: a shell script that calls the wrapper with ``--real-runtime``. Where the wrapper is
gone it calls the runtime itself, as it was called before us.
"""

import argparse
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from shim import config
from shim.engines.registration import Coverage, Host, dropin
from shim.engines.registration.changes import Edit, edit
from shim.engines.registration.status import StatusEntry
from shim.errors import ShimError, counted

_MODE = 0o755
_STOCK = ("runc", "crun")
_LABEL = "seccomp-shim/installed"  # which the RuntimeClass asks of a node
_REAL = re.compile(r"^real=(.+)$", re.MULTILINE)


def add_option(parser: argparse._ActionsContainer, what: str) -> None:
    """Add the option that names one runtime to stand in front of."""
    parser.add_argument(
        "--runtime",
        default="",
        metavar="NAME",
        help=f"instead, stand in front of the {what} NAME that is there already: whoever asks for "
        "it is covered, and it is what is called",
    )


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add the option that has an uninstall done although pods need us."""
    parser.add_argument(
        "--force", action="store_true", help="even where pods have the handler that is taken out"
    )


def refusal(
    pods: list[str] | None, started: Mapping[str, str], options: argparse.Namespace | None
) -> list[str]:
    """Return what to say of pods that have our handler, and of containers started by us.

    ``pods`` is None where it cannot be told: then all that were started may have it. ShimError: not
    now. Once restarted without the handler the engine could neither enter, stop nor remove them.
    """
    needing = list(started) if pods is None else pods
    have = counted(len(needing), "pod has", "pods have")
    notes = [f"{have} the handler: {_shown(needing)}"] if needing else []
    if needing and not (options and options.force):
        hint = "it stays until none is left: end them first"
        raise ShimError(notes[0], hint=f"{hint}, or give --force" if options else hint)
    if pods is not None and started:
        were = counted(len(started), "running container was", "running containers were")
        until = "it ends" if len(started) == 1 else "they end"
        notes.append(
            f"{were} started by it: its program must stay until {until}: {_shown(list(started))}"
        )
    return notes


def removal(
    pods: list[str] | None,
    started: Mapping[str, str],
    options: argparse.Namespace,
    edits: Sequence[Edit],
    engine: str,
) -> tuple[list[Edit], list[str]]:
    """Return the edits of an uninstall that can be made, and what to say of it; see ``refusal``.

    A script by which running containers were started stays: each exec, stop and removal calls it.
    """
    if not edits:
        return [], []
    notes = refusal(pods, started, options)
    called = {os.path.basename(each) for each in started.values()}
    stay = [e for e in edits if e.after is None and is_ours(e.path.name) and e.path.name in called]
    notes += [
        f"{each.path} stays, by which running containers were started: once they have ended, run "
        "this again"
        for each in stay
    ]
    left = [each for each in edits if each not in stay]
    restart = f"restart {engine} afterwards; until then it has what it has read"
    return left, [*notes, *([restart] if left else [])]


def _shown(ids: list[str]) -> str:
    return ", ".join(each[:12] for each in ids[:5]) + (", ..." if len(ids) > 5 else "")


def program(host: Host, engine: str, name: str, real: str, where: Path) -> tuple[str, list[Edit]]:
    """Return what ``engine`` is to call for its runtime ``name``, which is ``real``, and its edits.

    ``where`` is the directory of such scripts as the engine names it. ShimError: ``real`` is not
    there, or it is one of ours.
    """
    if real in _STOCK:
        return dropin.program(host, f"seccomp-shim-{real}"), []  # looked for as the engine does
    found = real if os.path.isabs(real) else host.program(real)
    if not found or not any(os.access(each, os.X_OK) for each in (host.path(found), found)):
        raise ShimError(f"{engine}'s runtime {name} is a program that is not there: {real}")
    if os.path.basename(os.path.realpath(found)).startswith("seccomp-shim"):
        raise ShimError(f"{engine}'s runtime {name} is one of ours already: {real}")
    stem = os.path.basename(found)
    refuse_machines(name, found)
    if stem in _STOCK and _chosen(host, stem) in {
        os.path.realpath(found),
        os.path.realpath(host.path(found)),
    }:
        return dropin.program(host, f"seccomp-shim-{stem}"), []
    path = where / file_name(engine, name)
    text = (
        f"#!/bin/sh\n# Written by seccomp-shim install {engine}: the wrapper in front of one "
        f"runtime.\nreal={shlex.quote(found)}\n"
        f"wrapper={shlex.quote(dropin.program(host, 'seccomp-shim-runtime'))}\n"
        '[ ! -x "$wrapper" ] || exec "$wrapper" --real-runtime "$real" "$@"\nexec "$real" "$@"\n'
    )
    return str(path), [edit(host.path(str(path)), text.encode(), _MODE)]


def refuse_machines(name: str, path: str) -> None:
    """Refuse a runtime whose containers have a kernel of their own. ShimError: it is one."""
    if "kata" in os.path.basename(path) or name.startswith("kata"):
        raise ShimError(f"the runtime {name} runs virtual machines, with kernels of their own")


def file_name(engine: str, name: str) -> str:
    """Return the name of the script for the runtime ``name``. ShimError: it cannot be in one."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ShimError(f"the name {name!r} cannot be part of a file's", subject=engine)
    return f"seccomp-shim-{engine}-{name}"


def places(host: Host, engine: str, where: Path) -> list[Path]:
    """Return the scripts of ``engine`` that are there."""
    return sorted(host.path(str(where)).glob(f"seccomp-shim-{engine}-*"))


def entries(host: Host, file: Path, name: str, program: str) -> Iterator[StatusEntry]:
    """Return the entries of ``status`` for a runtime ``name``: ours, and what that calls."""
    for what, path in ((name, program), (f"{name} calls", real_of(host.path(program)))):
        if path:
            there = os.access(host.path(path), os.X_OK)
            yield StatusEntry(
                file=str(file), name=what, path=path, exists=there, handler=what == name
            )


def coverage(names: list[str], *, default: bool) -> Coverage:
    """Return which pods an engine's handlers cover."""
    found = ["pods without a RuntimeClass"] if default else []
    found += [f"pods of the handler {name}" for name in dict.fromkeys(names)]
    return Coverage(
        f"{'' if default else 'only '}{' and '.join(found)}; exec into them",
        "pods of another RuntimeClass" if default else "pods without a RuntimeClass, or of another",
        plain=default,
    )


def steps(handler: str) -> list[str]:
    """Return how pods get a handler that is not the default one."""
    return [
        f"label the nodes that have it: kubectl label node NODE {_LABEL}=true",
        "give pods the handler: kubectl apply -f deploy/kubernetes/base/runtimeclass.yaml, "
        f"then runtimeClassName: {handler}",
    ]


def unseen(engine: str) -> list[str]:
    """Return what only root sees of ``engine``."""
    return [f"what a running {engine} has read: this takes root"] if os.geteuid() != 0 else []


def is_ours(program: object) -> bool:
    """Tell whether an engine's runtime is one of our executables."""
    return isinstance(program, str) and os.path.basename(program).startswith("seccomp-shim-")


def real_of(script: Path) -> str:
    """Return the runtime that a script stands in front of; empty: it is none, or not there."""
    try:
        found = _REAL.search(script.read_text(encoding="utf-8"))
        return shlex.split(found[1])[0] if found else ""
    except (OSError, ValueError):
        return ""


def _chosen(host: Host, name: str) -> str:
    """Return the path of what the wrapper calls by itself for runtime ``name``."""
    settings, _ = config.load(str(host.path(config.PATH)))
    return os.path.realpath(settings["runtimes"].get(name) or host.program(name) or "/nowhere")
