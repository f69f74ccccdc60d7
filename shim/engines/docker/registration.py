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
from collections.abc import Sequence
from pathlib import Path

from shim.engines.docker import config, dockerd, uses
from shim.engines.docker import site as dockersite
from shim.engines.docker import way as dockerway
from shim.engines.docker.choose import RUNTIME
from shim.engines.docker.site import Site
from shim.engines.docker.status import activate, coverage, status
from shim.engines.registration import Host, RegistrationPlan, add_default, dropin, executable
from shim.engines.registration.changes import Edit, edit
from shim.errors import ShimError

__all__ = [
    "activate", "install_options", "places", "plan", "removal", "status",
    "status_options", "uninstall_options", "without",
]  # fmt: skip


def install_options(parser: argparse.ArgumentParser) -> None:
    """Add what only Docker has."""
    dockersite.add_option(parser)
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
    dockersite.add_option(parser)
    parser.add_argument(
        "--force", action="store_true", help="even where containers were created with the runtime"
    )
    parser.add_argument(
        "--no-reload", action="store_true", help="do not send SIGHUP to the running dockerd"
    )


def status_options(parser: argparse.ArgumentParser) -> None:
    """Add what only Docker has."""
    dockersite.add_option(parser)


def plan(options: argparse.Namespace, host: Host) -> RegistrationPlan:
    """Plan the entry in daemon.json, or the profile and the setting that names it."""
    site = dockersite.find(options, host)
    where = str(site.path)
    if site.config.mark and dockerd.version(host) and dockerd.version(host) < (23,):
        raise ShimError("begins with a byte order mark, which this dockerd refuses", subject=where)
    info = dockerd.info(site.daemons[0]) if site.daemons else None
    release = dockerway.release_of(host, info)
    if options.profile:
        edits, notes, steps = _by_profile(site, host, release)
    elif options.runtime:
        edits, notes, steps = _in_front(site, host, options.runtime)
    else:
        edits, notes, steps = _by_runtime(site, host, release, default=bool(options.default))
    changed = [each for each in edits if each.before != each.after]
    if changed:
        notes += _validated(site, host, edits[-1].after or b"")
    if not site.daemons:
        notes += dropin.absence(host, "dockerd")
    if changed and not site.daemons:
        unseen = f"whether a dockerd runs, and with {where}, is not seen without root"
        none = f"no dockerd runs with {where}: it holds from its next start on"
        steps.append(unseen if os.geteuid() else none)
    after = config.read(edits[-1].after, where)
    covers = coverage(after, after.default or site.default, site.daemons)
    return RegistrationPlan(changed, notes, steps, covers, bool(options.default))


def _by_runtime(
    site: Site, host: Host, release: str, *, default: bool
) -> tuple[list[Edit], list[str], list[str]]:
    program = dropin.program(host, config.PROGRAM)
    known = site.config.runtimes.get(RUNTIME)
    if known is not None and not config.is_ours(known):
        shown = known.get("path") or known.get("runtimeType")
        raise ShimError(
            f"has a runtime {RUNTIME} that is not ours ({shown})",
            subject=str(site.path),
            hint="give it another name there",
        )
    for flags in site.flags:
        if any(each.startswith(f"{RUNTIME}=") for each in flags.values("--add-runtime")):
            raise ShimError(
                f"has the flag --add-runtime {RUNTIME}=...",
                subject=flags.source,
                hint="remove it there: the entry in daemon.json replaces it",
            )
    if default:
        _no_flag(site, "--default-runtime")
    args, notes = _arguments(site, host, default=default)
    entry = {**(known or {}), "path": program, "runtimeArgs": args}
    if not args:
        uses.refuse_lost_script(site, host, RUNTIME)
        del entry["runtimeArgs"]
    if real := dockerway.real_of(args):
        notes.append(f"{RUNTIME} calls {real}, Docker's default runtime so far")
    notes.append(dockerway.advice(dockerway.facts(host, release, args))[1])
    after = config.merged(site.config, entry, default, "")
    steps = []
    if default:
        but = "".join(f", but for those of {name}" for name in config.fronted(site.config))
        steps.append(
            f"containers that are there keep their runtime; recreate those to be covered{but}"
        )
    return [edit(site.path, after)], notes, steps


def _in_front(site: Site, host: Host, name: str) -> tuple[list[Edit], list[str], list[str]]:
    """Plan that the runtime ``name`` is the wrapper, which calls what it was."""
    where = str(site.path)
    program = dropin.program(host, config.PROGRAM)
    entry = site.config.runtimes.get(name)
    if name == RUNTIME or name not in site.runtimes:
        known = ", ".join(site.runtimes) or "none"
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
    args = dockerway.real_args(host, name, site.runtimes)
    if "path" not in entry:
        raise ShimError(
            f"the runtime {name} is given by runtimeType and options, which would be lost",
            subject=where,
            hint='write it as {"path": ...}, then run this again',
        )
    after = config.merged(
        site.config, {**entry, "path": program, "runtimeArgs": args}, False, "", name
    )
    notes = [f"{name} is the wrapper, and calls {dockerway.real_of(args)}, which it was so far"]
    steps = ["containers of it are covered from their next start on"]
    return [edit(site.path, after)], notes, steps


def _arguments(site: Site, host: Host, *, default: bool) -> tuple[list[str], list[str]]:
    """Return the arguments by which the wrapper calls Docker's default runtime, and what to say."""
    args: list[str] = site.config.runtimes.get(RUNTIME, {}).get("runtimeArgs") or []
    by_hand = bool(args) and args[0] != "--real-runtime"
    if by_hand or site.default == RUNTIME:  # the latter: they name what was the default before us
        return args, []
    try:
        return dockerway.real_args(host, site.default, site.runtimes), []
    except ShimError as error:
        if default:
            hint = f"install without --default; containers ask for it by --runtime {RUNTIME}"
            raise ShimError(error.message, subject=str(site.path), hint=hint) from None
        return [], [f"{error.message}; {RUNTIME} calls the runtime of its own settings"]


def _by_profile(site: Site, host: Host, release: str) -> tuple[list[Edit], list[str], list[str]]:
    _no_flag(site, "--seccomp-profile")
    chosen = site.config.profile
    if chosen == "unconfined":
        raise ShimError(
            "seccomp-profile is unconfined: containers have no filter, nothing is to be done",
            subject=str(site.path),
        )
    if chosen not in {"", "builtin", "default"} and not dockerway.is_profile(chosen):
        raise ShimError(
            f"seccomp-profile is your own {chosen}, which stays",
            subject=str(site.path),
            hint=f"add the calls to it: seccomp-shim patch --in-place {chosen}, restart dockerd",
        )
    if site.default == RUNTIME:
        args = site.config.runtimes.get(RUNTIME, {}).get("runtimeArgs") or []
    else:
        args = dockerway.real_args(host, site.default, site.runtimes)
    found = dockerway.facts(host, release, args)
    text, names = dockerway.profile(found)
    path = dockerway.profile_path(host, release)
    after = config.merged(site.config, None, False, str(path))
    notes = [
        f"the profile is that of Docker {release} with {', '.join(names)} added; "
        f"{found.real} has libseccomp {found.libseccomp}, which knows them",
    ]
    fits, reason = dockerway.advice(found)
    if fits != "profile":
        notes.append(reason)
    steps = [
        "restart dockerd: it reads seccomp-profile at start only",
        "run this again after an upgrade of Docker, whose own profile may then be a newer one",
    ]
    return [edit(path, text), edit(site.path, after)], notes, steps


def places(options: argparse.Namespace, host: Host) -> list[Path]:
    """Return daemon.json, and the profiles that we may have written."""
    directory = host.path(dockerway.PROFILES)
    return [dockersite.find(options, host).path, *sorted(directory.glob("docker-*.json"))]


def without(path: Path, now: bytes, original: bytes | None) -> bytes | None:
    """Take our entries out of daemon.json; a profile that somebody has edited is theirs."""
    if dockerway.is_profile(str(path)):
        return now
    return config.without(now, original, str(path), dockerway.is_profile)


def removal(
    options: argparse.Namespace, host: Host, edits: Sequence[Edit]
) -> tuple[list[Edit], list[str]]:
    """Refuse while containers have a runtime of ours, unless ``--force`` is given."""
    site = dockersite.find(options, host)
    return list(edits), uses.refusal(site, host, force=options.force) if edits else []


def _no_flag(site: Site, flag: str) -> None:
    for flags in site.flags:
        for value in flags.values(flag)[:1]:
            raise ShimError(
                f"has the flag {flag} {value}: dockerd would not start with both",
                subject=flags.source,
                hint=f"remove the flag there, set {flag[2:]} in {site.path}, then run this again",
            )


def _validated(site: Site, host: Host, after: bytes) -> list[str]:
    """Have dockerd check the result in a copy; its directory is ours alone: it may hold secrets."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "daemon.json"
        if site.data and site.data.strip():
            copy.write_bytes(site.data)
            dockerd.validate(host, copy, str(site.path), "the file as it is")
        copy.write_bytes(after)
        if dockerd.validate(host, copy, str(site.path), "the result"):
            return ["dockerd --validate takes the result"]
    return []
