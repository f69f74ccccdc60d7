"""What there is to know of a host: its kernel, runtimes, engines, profiles, and of us."""

import os
from collections.abc import Sequence
from typing import Any

from shim import __version__
from shim.catalog import kernel_injected, load
from shim.discovery.find import document, survey
from shim.discovery.profile_state import PatchOptions
from shim.discovery.root import Root
from shim.engines.registration import ENGINES, this_host
from shim.engines.service import status_or_problem
from shim.host import cache
from shim.host.effect import effects_here, library, runtimes

PREFIX = "/opt/seccomp-shim"
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"


def gather(
    extra_paths: Sequence[str] = (),
    *,
    profiles: bool = True,
    fresh: bool = False,
    homes: bool = False,
) -> Any:
    """Return all facts as one JSON document.

    ``kernel``, ``syscalls`` and ``prober`` as ``shim.host.cache.facts`` has them (asked anew if
    ``fresh``), ``ptrace`` and ``libseccomp`` as the verb probe prints them; ``runtimes``:
    ``[{"path", "program", "libseccomp"}]``; ``engines`` as the verb status prints them;
    ``installed``: ``{"prefix", "version"}`` or None; ``profiles``: as ``find --json`` prints them
    but judged by their text alone, ``extra_paths`` looked at as well, users' home directories with
    ``homes``, and both told; ``notes``: what could not be looked at, and why.
    """
    notes: list[str] = []
    host = this_host()
    return {
        "version": __version__,
        **cache.facts(fresh=fresh),
        "ptrace": {"yama_scope": _yama_scope()},
        "libseccomp": library(load()),
        "runtimes": runtimes(),
        "engines": [status_or_problem(name, host).document() for name in ENGINES],
        "installed": installed(),
        "profiles": _profiles(extra_paths, notes, homes) if profiles else None,
        "extra_paths": list(extra_paths),
        "homes": homes,
        "notes": notes,
    }


def installed(prefix: str = PREFIX) -> dict[str, str] | None:
    """Tell what install.sh has installed; None: nothing."""
    try:
        with open(f"{prefix}/current/complete", encoding="utf-8") as file:
            return {"prefix": prefix, "version": file.read().strip().rpartition(" ")[2]}
    except OSError:
        return None


def _yama_scope() -> int | None:
    try:
        with open(_YAMA, encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return None


def _profiles(extra_paths: Sequence[str], notes: list[str], homes: bool) -> list[dict[str, Any]]:
    calls = list(kernel_injected().values())
    options = PatchOptions(calls, {}, "always", effects=effects_here(calls))
    extra = [os.path.abspath(path) for path in extra_paths]
    found = survey(Root(), None, options, extra=extra, homes=homes)
    notes += [f"{path}: {why}" for path, why in found.notes]
    return [document(each, options.effects) for each in found.found]
