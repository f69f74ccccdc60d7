"""Which of the changed profiles get a container, flattened as a runtime is given them."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from shim.catalog import kernel_injected
from shim.discovery.root import Root
from shim.errors import ShimError
from shim.host.runtimes import numbers
from shim.profile.contents import Part, read
from shim.profile.docker import DEFAULT_CAPABILITIES
from shim.profile.document import Document, resolved
from shim.transaction.staged import Change

# So many different profiles get containers: a fleet's hosts have few, and each costs a second.
MOST = 4
_ALLOWING = ("allows", "default-allows", "unconfined")


class Trial(NamedTuple):
    """A profile that changes: its file, its name for people, ``linux.seccomp`` before and after.

    ``allowed`` are the calls that it allows after, ``lost`` those that it allows before only.
    """

    file: str
    name: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    allowed: frozenset[str]
    lost: frozenset[str]


def chosen(changes: Iterable[Change], contents: Mapping[str, bytes]) -> tuple[list[Trial], int]:
    """Return the profiles to be tried, each different one once, and how many others there are.

    ``contents`` are the new ones by checksum. A profile that nothing here can flatten counts, too.
    """
    trials: dict[str, Trial] = {}
    others: set[str] = set()
    done: set[tuple[str, str]] = set()
    for each in changes:
        if (each.before, each.after) in done:
            continue
        done.add((each.before, each.after))
        try:
            found = list(_trials(each.path, contents[each.after]))
        except (ShimError, OSError):
            others.add(each.after)
            continue
        for one in found:
            trials.setdefault(json.dumps([one.before, one.after], sort_keys=True), one)
    known = list(trials.values())
    return known[:MOST], len(known[MOST:]) + len(others)


def _trials(file: str, new: bytes) -> Iterator[Trial]:
    parts = zip(read(Root().read(file), file).parts, read(new, file).parts, strict=False)
    for old, now in parts:
        if old.document.tree == now.document.tree:
            continue
        allows = _allowed(now)
        name = f"{file} ({now.name})" if now.name else file
        before, after = flattened(old.document), flattened(now.document)
        yield Trial(file, name, before, after, allows, _allowed(old) - allows)


def _allowed(part: Part) -> frozenset[str]:
    seccomp, evaluate = part.document.seccomp or {}, part.document.format.evaluate
    return frozenset(name for name in kernel_injected() if evaluate(seccomp, name)[0] in _ALLOWING)


def flattened(document: Document) -> dict[str, Any] | None:
    """Flatten as Docker does for a container to which nobody added anything."""
    system = os.uname()
    major, minor = numbers(system.release)[:2]
    return resolved(
        document,
        capabilities=DEFAULT_CAPABILITIES,
        machine=system.machine,
        kernel=(major, minor),
    )
