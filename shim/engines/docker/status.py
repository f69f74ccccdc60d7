"""What Docker knows of us now: after a change, and for the verb status."""

import argparse
import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from shim.engines.docker import config as daemonjson
from shim.engines.docker import default_profile, dockerd, installation
from shim.engines.docker.choose import RUNTIME
from shim.engines.docker.installation import Installation
from shim.engines.registration import Coverage, Host
from shim.engines.registration.status import EngineStatus, StatusEntry

_BUILT = "what docker build runs by BuildKit"


@dataclass(frozen=True, kw_only=True)
class DockerStatus(EngineStatus):
    """Docker's: the default ``profile`` where that is ours, and dockerd's ``version``."""

    DOCUMENT = (
        "engine present registered entries default in_use profile version covers not_covered "
        "covers_all unseen running known problems notes"
    )

    profile: str
    version: str


def activate(options: argparse.Namespace, host: Host) -> list[str]:
    """Have the running daemons read daemon.json where SIGHUP is enough, and say what is left."""
    docker = installation.find(options, host)
    return [line for daemon in docker.daemons for line in _activated(docker, daemon, options)]


def _activated(
    docker: Installation, daemon: dockerd.RunningDockerd, options: argparse.Namespace
) -> list[str]:
    who = f"dockerd (pid {daemon.pid})"
    info = dockerd.info(daemon)
    if info is None:
        return [f"{who} does not answer on a local socket: have it reload, or restart it"]
    if not _pending(docker, info):
        return _left_over(docker, info, who)
    if options.no_reload:
        return [f"{who} has not been told: kill -HUP {daemon.pid}, or restart it"]
    if daemon.flags.values("--add-runtime"):
        return [
            f"restart {who}: told by SIGHUP, it would forget the runtimes of its flag --add-runtime"
        ]
    dockerd.reload(daemon)
    info = dockerd.wait_until(daemon, lambda now: not _pending(docker, now))
    if info is None or _pending(docker, info):
        return [f"{who} has not taken {docker.path} over: its log says why"]
    return [f"{who} has read {docker.path} again", *_left_over(docker, info, who)]


def status(options: argparse.Namespace, host: Host) -> EngineStatus:
    """Tell what is registered, whether it works, and what the running daemon knows."""
    docker = installation.find(options, host)
    entry = docker.config.runtimes.get(RUNTIME)
    ours = daemonjson.is_ours(entry)
    profile = docker.config.profile if default_profile.is_profile(docker.config.profile) else ""
    problems: list[str] = []
    entries = []
    for name, former in daemonjson.fronted(docker.config).items():
        path = docker.config.runtimes[name]["path"]
        entries.append(_entry(docker, name, path, os.X_OK))
        entries.append(_entry(docker, f"{name} calls", former["path"], os.X_OK))
    if ours and entry:
        entries.append(_entry(docker, RUNTIME, entry["path"], os.X_OK))
        real = daemonjson.real_of(entry.get("runtimeArgs") or [])
        if os.path.isabs(real):
            entries.append(_entry(docker, "real runtime", real, os.X_OK))
    if profile:
        entries.append(_entry(docker, "seccomp-profile", profile, os.R_OK))
    problems += [
        f"{each.file}: {each.name} names {each.path}, which is not there"
        for each in entries
        if not each.exists
    ]
    infos = [(daemon, dockerd.info(daemon)) for daemon in docker.daemons]
    release = dockerd.release_of(host, infos[0][1] if infos else None)
    notes: list[str] = []
    for daemon, info in infos:
        who = f"dockerd (pid {daemon.pid})"
        if info is None:
            notes.append(f"{who} does not answer on a local socket")
        elif _pending(docker, info) and entries:
            problems.append(f"{who} has not read {docker.path} since: reload or restart it")
        else:
            problems += _left_over(docker, info, who)
    if profile and release and not profile.endswith(f"/docker-{release}.json"):
        problems.append(f"{profile} is not that of Docker {release}: install again with --profile")
    answered = [info for _, info in infos if info is not None]
    # Which files a process of root's reads is for root to see.
    blind = os.geteuid() != 0 and not docker.daemons
    return DockerStatus(
        engine="docker",
        present=bool(host.program("dockerd") or docker.daemons or docker.data is not None),
        registered=bool(entries),
        entries=entries,
        default=ours and docker.config.default == RUNTIME,
        in_use=bool(entries) or any(_has_us(info) for info in answered),
        profile=profile,
        version=release,
        coverage=coverage(docker.config, docker.default, docker.daemons),
        unseen=["whether dockerd runs and what it has read: this takes root"] if blind else [],
        running=None if blind else bool(docker.daemons),
        known=all(not _pending(docker, info) for info in answered) if answered else None,
        problems=problems,
        notes=notes,
    )


def coverage(
    config: daemonjson.Config, default: str, daemons: Collection[dockerd.RunningDockerd]
) -> Coverage:
    """Return which containers are looked after with what daemon.json says, and this default."""
    ours = bool(daemons) and all(map(dockerd.builds_by_us, daemons))
    built, unbuilt = (f"; {_BUILT}", "") if ours else ("", f"; {_BUILT}")
    fronted = daemonjson.fronted(config)
    named = [f"--runtime {name}" for name in fronted]
    if daemonjson.is_ours(config.runtimes.get(RUNTIME)):
        named.insert(0, f"--runtime {RUNTIME} (or by seccomp-shim docker)")
    by_name = " or ".join(named)
    # A container keeps its runtime's name, which has become ours with all that are there.
    later = f"; those of {' and '.join(fronted)} from their next start on" if fronted else ""
    if default in {RUNTIME, *fronted}:
        before = f"{'other ' if fronted else ''}containers made before, until they are made anew; "
        return Coverage(
            f"every container that is created from now on, and exec into it{later}{built}",
            f"{before if default == RUNTIME else ''}those with another --runtime{unbuilt}",
            plain=True,
        )
    if default_profile.is_profile(config.profile):
        return Coverage(
            "containers without a profile or a runtime of their own, and exec into them"
            + (f"; those with {by_name}" if named else "")
            + later
            + built,
            f"those with --security-opt seccomp= or another --runtime{unbuilt}",
            plain=True,
        )
    return Coverage(
        f"only containers that are created with {by_name}, and exec into them{later}",
        "a plain docker run, and all else that does not name such a runtime",
        plain=False,
    )


def _entry(docker: Installation, name: str, path: str, needed: int) -> StatusEntry:
    there = os.path.isfile(path) and os.access(path, needed)
    return StatusEntry(file=str(docker.path), name=name, path=path, exists=there)


def _pending(docker: Installation, info: dict[str, Any]) -> bool:
    """Tell whether the file has of us or of a default runtime what a SIGHUP would bring."""
    config = docker.config
    if config.default and config.default != info.get("DefaultRuntime"):
        return True
    known = info.get("Runtimes") or {}
    return any(
        _called(entry) != _called(known.get(name) or {})
        for name, entry in config.runtimes.items()
        if daemonjson.is_ours(entry) or daemonjson.is_ours(known.get(name))
    )


def _called(entry: dict[str, Any]) -> tuple[str, list[str]]:
    return str(entry.get("path")), entry.get("runtimeArgs") or []


def _has_us(info: dict[str, Any]) -> bool:
    """Tell whether a running daemon starts containers by us that do not ask for our name."""
    runtimes = info.get("Runtimes") or {}
    fronts = [name for name, entry in runtimes.items() if daemonjson.is_ours(entry)]
    return info.get("DefaultRuntime") in fronts or any(name != RUNTIME for name in fronts)


def _left_over(docker: Installation, info: dict[str, Any], who: str) -> list[str]:
    """Say what only a restart brings."""
    lines = []
    if RUNTIME not in docker.config.runtimes and info.get("DefaultRuntime") == RUNTIME:
        lines.append(
            f"restart {who} before seccomp-shim is removed: until then it starts every new "
            f"container by {RUNTIME}"
        )
    elif RUNTIME not in docker.config.runtimes and RUNTIME in (info.get("Runtimes") or {}):
        lines.append(f"{who} knows the runtime {RUNTIME} until it is restarted")
    elif docker.config.default != RUNTIME and info.get("DefaultRuntime") == RUNTIME:
        lines.append(f"restart {who}: until then {RUNTIME} is its default runtime")
    used = ",".join(map(str, info.get("SecurityOptions") or []))
    profile = docker.config.profile
    if default_profile.is_profile(profile) and f"profile={profile}" not in used:
        lines.append(f"restart {who}: it does not use {profile} yet")
    if "/seccomp-shim/profiles/docker-" in used and not default_profile.is_profile(profile):
        lines.append(f"restart {who}: it uses our profile until then")
    return lines
