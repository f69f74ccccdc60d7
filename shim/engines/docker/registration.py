"""Docker: the wrapper as a runtime of daemon.json, or an augmented default profile.

What dockerd does (measured with 20.10.24, 26.1.5 and 28.5.2): SIGHUP adds runtimes and sets the
default runtime, but what has gone from the file it keeps until it is restarted; it then forgets
the runtimes of ``--add-runtime``; and it reads ``seccomp-profile`` at start only. It refuses to
start where default-runtime or seccomp-profile is both in the file and a flag. 20.10 refuses an
empty file and a byte order mark.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shim.engines.docker import (
    config,
    containers,
    default_profile,
    dockerd,
    install_advice,
    installation,
)
from shim.engines.docker.choose import RUNTIME
from shim.engines.docker.installation import Installation
from shim.engines.docker.status import activate, coverage, status
from shim.engines.registration import Host, RegistrationPlan, add_default, dropin, executable
from shim.engines.registration.changes import Edit, edit
from shim.errors import ShimError

_STOCK = {"", "runc", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux"}
_RUNC_SHIM = "io.containerd.runc.v2"

__all__ = [
    "activate", "install_options", "places", "plan", "removal", "status",
    "status_options", "uninstall_options", "without",
]  # fmt: skip


def install_options(parser: argparse.ArgumentParser) -> None:
    """Add what only Docker has."""
    installation.add_option(parser)
    way = parser.add_mutually_exclusive_group()
    add_default(
        way, "make it the default runtime, too: for all containers that are created from now on"
    )
    way.add_argument(
        "--profile",
        action="store_true",
        help="instead of the runtime, write Docker's default profile with the missing calls added "
        "and set it as seccomp-profile: costs nothing, but does something only where the "
        "runtime's libseccomp knows the calls' names. Needs a restart of dockerd",
    )
    executable.add_option(way, "runtime")
    parser.add_argument(
        "--no-reload",
        action="store_true",
        help="do not send SIGHUP to the running dockerd: it knows the runtime when it is restarted",
    )


def uninstall_options(parser: argparse.ArgumentParser) -> None:
    """Add what only Docker has."""
    installation.add_option(parser)
    parser.add_argument(
        "--force", action="store_true", help="even where containers were created with the runtime"
    )
    parser.add_argument(
        "--no-reload", action="store_true", help="do not send SIGHUP to the running dockerd"
    )


def status_options(parser: argparse.ArgumentParser) -> None:
    """Add what only Docker has."""
    installation.add_option(parser)


def plan(options: argparse.Namespace, host: Host) -> RegistrationPlan:
    """Plan the entry in daemon.json, or the profile and the setting that names it."""
    docker = installation.find(options, host)
    where = str(docker.path)
    if docker.config.mark and dockerd.version(host) and dockerd.version(host) < (23,):
        raise ShimError("begins with a byte order mark, which this dockerd refuses", subject=where)
    info = dockerd.info(docker.daemons[0]) if docker.daemons else None
    release = dockerd.release_of(host, info)
    if options.profile:
        edits, notes, steps = _by_profile(docker, host, release)
    elif options.runtime:
        edits, notes, steps = _in_front(docker, host, options.runtime)
    else:
        edits, notes, steps = _by_runtime(docker, host, release, default=bool(options.default))
    changed = [each for each in edits if each.before != each.after]
    if changed:
        notes += _validated(docker, host, edits[-1].after or b"")
    if not docker.daemons:
        notes += dropin.absence(host, "dockerd")
    if changed and not docker.daemons:
        unseen = f"whether a dockerd runs, and with {where}, is not seen without root"
        none = f"no dockerd runs with {where}: it holds from its next start on"
        steps.append(unseen if os.geteuid() else none)
    after = config.read(edits[-1].after, where)
    covers = coverage(after, after.default or docker.default, docker.daemons)
    return RegistrationPlan(changed, notes, steps, covers, bool(options.default))


def _by_runtime(
    docker: Installation, host: Host, release: str, *, default: bool
) -> tuple[list[Edit], list[str], list[str]]:
    program = dropin.program(host, config.PROGRAM)
    known = docker.config.runtimes.get(RUNTIME)
    if known is not None and not config.is_ours(known):
        shown = known.get("path") or known.get("runtimeType")
        raise ShimError(
            f"has a runtime {RUNTIME} that is not ours ({shown})",
            subject=str(docker.path),
            hint="give it another name there",
        )
    for flags in docker.flags:
        if any(each.startswith(f"{RUNTIME}=") for each in flags.values("--add-runtime")):
            raise ShimError(
                f"has the flag --add-runtime {RUNTIME}=...",
                subject=flags.source,
                hint="remove it there: the entry in daemon.json replaces it",
            )
    if default:
        _no_flag(docker, "--default-runtime")
    args, notes = _arguments(docker, host, default=default)
    entry = {**(known or {}), "path": program, "runtimeArgs": args}
    if not args:
        containers.refuse_lost_script(docker, host, RUNTIME)
        del entry["runtimeArgs"]
    if real := config.real_of(args):
        notes.append(f"{RUNTIME} calls {real}, Docker's default runtime so far")
    notes.append(install_advice.advice(install_advice.facts(host, release, args))[1])
    after = config.merged(docker.config, entry, default, "")
    steps = []
    if default:
        but = "".join(f", but for those of {name}" for name in config.fronted(docker.config))
        steps.append(
            f"containers that are there keep their runtime; recreate those to be covered{but}"
        )
    return [edit(docker.path, after)], notes, steps


def _in_front(
    docker: Installation, host: Host, name: str
) -> tuple[list[Edit], list[str], list[str]]:
    """Plan that the runtime ``name`` is the wrapper, which calls what it was."""
    where = str(docker.path)
    program = dropin.program(host, config.PROGRAM)
    entry = docker.config.runtimes.get(name)
    if name == RUNTIME or name not in docker.runtimes:
        known = ", ".join(docker.runtimes) or "none"
        raise ShimError(
            f"has no runtime {name} to stand in front of (it has: {known})",
            subject=where,
            hint="seccomp-shim install docker --default covers runc, where that is the default",
        )
    if entry is None:
        raise ShimError(
            f"the runtime {name} is one of the flag --add-runtime",
            subject=where,
            hint=f"remove the flag and write it to {where}, then run this again",
        )
    args = _real_args(host, name, docker.runtimes)
    if "path" not in entry:
        raise ShimError(
            f"the runtime {name} is given by runtimeType and options, which would be lost",
            subject=where,
            hint='write it as {"path": ...}, then run this again',
        )
    after = config.merged(
        docker.config, {**entry, "path": program, "runtimeArgs": args}, False, "", name
    )
    notes = [f"{name} is the wrapper, and calls {config.real_of(args)}, which it was so far"]
    steps = ["containers of it are covered from their next start on"]
    return [edit(docker.path, after)], notes, steps


def _arguments(docker: Installation, host: Host, *, default: bool) -> tuple[list[str], list[str]]:
    """Return the arguments by which the wrapper calls Docker's default runtime, and what to say."""
    args: list[str] = docker.config.runtimes.get(RUNTIME, {}).get("runtimeArgs") or []
    by_hand = bool(args) and args[0] != "--real-runtime"
    if by_hand or docker.default == RUNTIME:  # the latter: they name what was the default before us
        return args, []
    try:
        return _real_args(host, docker.default, docker.runtimes), []
    except ShimError as error:
        if default:
            hint = f"install without --default; containers ask for it by --runtime {RUNTIME}"
            raise ShimError(error.message, subject=str(docker.path), hint=hint) from None
        return [], [f"{error.message}; {RUNTIME} calls the runtime of its own settings"]


def _real_args(host: Host, name: str, runtimes: Mapping[str, Any]) -> list[str]:
    """Return the wrapper's arguments that have it call what Docker's runtime ``name`` is.

    Empty for Docker's own runc. ShimError: that runtime is none that is called by a command line.
    """
    entry = runtimes.get(name)
    if entry is None and name in _STOCK:
        return []
    entry = entry or {}
    path, arguments = entry.get("path"), entry.get("runtimeArgs") or []
    kind = entry.get("runtimeType", "" if path else name)
    if not path and kind == _RUNC_SHIM:
        path = (entry.get("options") or {}).get("BinaryName") or "runc"
    if not path or kind not in {"", _RUNC_SHIM} or "containerd-shim" in str(path):
        raise ShimError(
            f"Docker's runtime {name} is a containerd shim, which cannot be wrapped",
        )
    executable.refuse_machines(name, str(path))
    if arguments and not str(arguments[0]).startswith("-"):
        raise ShimError(f"Docker's runtime {name} has arguments that are no options")
    found = path if os.path.isabs(path) else host.program(path)
    if not found:
        raise ShimError(f"Docker's runtime {name} names a program that is not there: {path}")
    return ["--real-runtime", found, *map(str, arguments)]


def _by_profile(
    docker: Installation, host: Host, release: str
) -> tuple[list[Edit], list[str], list[str]]:
    _no_flag(docker, "--seccomp-profile")
    chosen = docker.config.profile
    if chosen == "unconfined":
        raise ShimError(
            "seccomp-profile is unconfined: containers have no filter, nothing is to be done",
            subject=str(docker.path),
        )
    if chosen not in {"", "builtin", "default"} and not default_profile.is_profile(chosen):
        raise ShimError(
            f"seccomp-profile is your own {chosen}, which stays",
            subject=str(docker.path),
            hint=f"add the calls to it: seccomp-shim patch --in-place {chosen}, restart dockerd",
        )
    if docker.default == RUNTIME:
        args = docker.config.runtimes.get(RUNTIME, {}).get("runtimeArgs") or []
    else:
        args = _real_args(host, docker.default, docker.runtimes)
    found = install_advice.facts(host, release, args)
    text, names = default_profile.profile(found)
    path = default_profile.profile_path(host, release)
    after = config.merged(docker.config, None, False, str(path))
    notes = [
        f"the profile is that of Docker {release} with {', '.join(names)} added; "
        f"{found.real} has libseccomp {found.libseccomp}, which knows them",
    ]
    fits, reason = install_advice.advice(found)
    if fits != "profile":
        notes.append(reason)
    steps = [
        "restart dockerd: it reads seccomp-profile at start only",
        "run this again after an upgrade of Docker, whose own profile may then be a newer one",
    ]
    return [edit(path, text), edit(docker.path, after)], notes, steps


def places(options: argparse.Namespace, host: Host) -> list[Path]:
    """Return daemon.json, and the profiles that we may have written."""
    directory = host.path(default_profile.DIRECTORY)
    return [installation.find(options, host).path, *sorted(directory.glob("docker-*.json"))]


def without(path: Path, now: bytes, original: bytes | None) -> bytes | None:
    """Take our entries out of daemon.json; a profile that somebody has edited is theirs."""
    if default_profile.is_profile(str(path)):
        return now
    return config.without(now, original, str(path), default_profile.is_profile)


def removal(
    options: argparse.Namespace, host: Host, edits: Sequence[Edit]
) -> tuple[list[Edit], list[str]]:
    """Refuse while containers have a runtime of ours, unless ``--force`` is given."""
    docker = installation.find(options, host)
    return list(edits), containers.refusal(docker, host, force=options.force) if edits else []


def _no_flag(docker: Installation, flag: str) -> None:
    for flags in docker.flags:
        for value in flags.values(flag)[:1]:
            raise ShimError(
                f"has the flag {flag} {value}: dockerd would not start with both",
                subject=flags.source,
                hint=f"remove the flag there, set {flag[2:]} in {docker.path}, then run this again",
            )


def _validated(docker: Installation, host: Host, after: bytes) -> list[str]:
    """Have dockerd check the result in a copy; its directory is ours alone: it may hold secrets."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "daemon.json"
        if docker.data and docker.data.strip():
            copy.write_bytes(docker.data)
            dockerd.validate(host, copy, str(docker.path), "the file as it is")
        copy.write_bytes(after)
        if dockerd.validate(host, copy, str(docker.path), "the result"):
            return ["dockerd --validate takes the result"]
    return []
