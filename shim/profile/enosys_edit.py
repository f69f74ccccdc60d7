"""Which calls get ENOSYS by a rule: what the admin asks for, as far as no rule names it.

Nothing is allowed by that: it is the errno alone that changes, from EPERM.
"""

from collections.abc import Iterable
from typing import NamedTuple

from shim import catalog
from shim.catalog.table import numbers
from shim.errors import ShimError
from shim.profile.document import Document
from shim.profile.enosys_line import displaced
from shim.profile.unlisted_calls import named, refuses_by_eperm, unnamed

# Beside names of calls: those newer than the profile's epoch; with those that it passes over.
NEWER, UNNAMED = "newer", "unnamed"


class Refusals(NamedTuple):
    """The calls to be answered with ENOSYS, in the order of their numbers, and what to say.

    ``left`` are calls that stay as they are, each with the reason.
    """

    names: tuple[str, ...]
    reason: str
    left: tuple[tuple[str, str], ...]


NONE = Refusals((), "", ())


def checked(words: Iterable[str]) -> tuple[str, ...]:
    """Return ``words`` where each is a call that programs make, or ``newer`` or ``unnamed``.

    ShimError: one is none of these.
    """
    found = tuple(dict.fromkeys(words))
    for word in found:
        if word in catalog.kernel_injected():
            raise ShimError(
                "the kernel makes processes call it: to them ENOSYS is as fatal as EPERM",
                subject=word,
                hint="without --enosys patch allows it",
            )
        if word not in (NEWER, UNNAMED) and word not in numbers()["x86_64"]:
            raise ShimError("--enosys does not know this call", subject=word)
    return found


def refusals(document: Document, words: Iterable[str], line: str) -> Refusals:
    """Return what ``words`` mean for a profile; ``line`` is as for ``shim.profile.edit.plan``."""
    words = tuple(words)
    profile, form = document.seccomp, document.format
    if not words:
        return NONE
    if profile is None or not refuses_by_eperm(profile):
        return Refusals((), "", tuple((word, "its default action is not EPERM") for word in words))
    unheard, (name, epoch) = unnamed(profile, form.names_of)
    if not name:
        return Refusals((), "", tuple((word, "the profile names no call") for word in words))
    wanted: dict[str, int] = {}
    left: list[tuple[str, str]] = []
    for word in words:
        if word == NEWER:
            wanted |= {call: number for call, number in unheard.items() if number > epoch}
        elif word == UNNAMED:
            wanted |= unheard
        elif {word, numbers()["x86_64"][word]} & named(profile, form.names_of):
            left.append((word, "a rule names it"))
        else:
            wanted[word] = numbers()["x86_64"][word]
    kept = _before_the_line(document, wanted, words, line)
    notes = [f"no rule names them, its newest is {name} ({epoch})"]
    if passed := _listed([n for n, nr in unheard.items() if nr < epoch and n not in wanted]):
        notes.append(f"{passed} are passed over, and stay as they are (--enosys unnamed)")
    if beyond := _listed([call for call in wanted if call not in kept]):
        notes.append(f"to {beyond} runc says ENOSYS by itself, crun does not (--runtime crun)")
    if not kept:
        left += [(word, "; ".join(notes)) for word in words if word in (NEWER, UNNAMED)]
    ordered = sorted(kept, key=lambda call: (kept[call], call))
    return Refusals(tuple(ordered), "; ".join(notes), tuple(left))


def free(document: Document) -> frozenset[str]:
    """Return the calls of every architecture that no rule of a profile names."""
    heard = named(document.seccomp or {}, document.format.names_of)
    native = numbers()["x86_64"]
    calls = {name for table in numbers().values() for name in table}
    return frozenset(each for each in calls if heard.isdisjoint((each, native.get(each, each))))


def _before_the_line(
    document: Document, wanted: dict[str, int], words: tuple[str, ...], line: str
) -> dict[str, int]:
    """Leave out what would take other calls off runc's ENOSYS line, unless it was named."""
    profile, form = document.seccomp or {}, document.format
    while other := displaced(profile, form, wanted, line):
        below = min(numbers()["x86_64"].get(name, 0) for name in other)
        fewer = {name: nr for name, nr in wanted.items() if nr < below or name in words}
        if len(fewer) == len(wanted):
            break
        wanted = fewer
    return wanted


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
