"""runc's ENOSYS line, and what keeps calls on their side of it when a profile gets new names.

Where the default action denies, runc answers ENOSYS to all numbers above the largest one that the
profile names, per architecture (libcontainer/seccomp/patchbpf, since 1.0.0-rc93). A name that is
added moves that line, and calls in between would get the default action: programs that fall back to
an older call on ENOSYS fail then. So they are given ENOSYS by name. Pure; as a libseccomp counts
that knows every name. x86-64 comes first: what holds there is kept, wherever else it does not.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from shim import catalog
from shim.catalog.data import FIRST
from shim.catalog.table import ARCHITECTURES, numbers
from shim.host.runtimes import knows
from shim.profile import evaluate as core
from shim.profile.docker import architectures, architectures_on
from shim.profile.document import DOCKER, Format

# Who has a line: nobody (crun); runc on the architectures that a profile lists; since 1.1.15 also
# on the native one if it is not listed.
NOBODY, LISTED, IMPLIED = "", "listed", "implied"

ENOSYS = 38
_KEYS = {f"SCMP_ARCH_{name}": key for name, key in ARCHITECTURES.items()}
_LAX = (*core.ALLOWING, *core.SUPERVISED)


class Preserved(NamedTuple):
    """The ``names`` to be answered with ENOSYS, and ``lost``: calls that no such rule can keep."""

    names: tuple[str, ...]
    lost: tuple[str, ...]


def preserve(
    profile: dict[str, object],
    form: Format,
    added: Collection[str],
    whose: str = LISTED,
    everywhere: bool = False,
) -> Preserved:
    """Tell what keeps the line of ``profile`` where ``added`` is; both empty: it does not move.

    ``everywhere``: they are added for containers on all architectures, not only on x86-64.
    """
    if whose == NOBODY or profile.get("defaultAction") in _LAX or _is_enosys(profile):
        return Preserved((), ())
    always, sometimes = _named(profile, form)
    before = _lines(profile, form, always, whose, everywhere)
    names: set[str] = set()
    while True:
        between = _between(before, {*always, *added, *names})
        free = between - always - sometimes - set(added) - set(catalog.kernel_injected())
        # One rule answers on all architectures: first of all the native one stays as it was.
        more = {name for name in free if _is_above(name, "x86_64", before)}
        if more <= names:
            break
        names |= more
    lost = between - always - set(added) - names
    lost |= {name for name in names if not all(_is_above(name, key, before) for key in numbers())}
    return Preserved(tuple(sorted(names, key=_order)), tuple(sorted(lost, key=_order)))


def displaced(
    profile: dict[str, object], form: Format, added: Collection[str], whose: str
) -> set[str]:
    """Return the calls that runc answers with ENOSYS in some container, and not with ``added``."""
    if whose == NOBODY or profile.get("defaultAction") in _LAX or _is_enosys(profile):
        return set()
    always, _ = _named(profile, form)
    injected = set(catalog.kernel_injected())
    found: set[str] = set()
    # A library that drops a name does not count it either: the line is lower there.
    for unknown in _unknown_names():
        names, more = always - unknown, {*added} - unknown
        before = _lines(profile, form, names, whose, True)
        found |= _between(before, names | more) - names - more - injected - unknown
    return found


def _unknown_names() -> list[set[str]]:
    """Return what each release of libseccomp does not know of the catalogue's names."""
    calls = catalog.every().values()
    releases = {call.libseccomp for call in calls if call.libseccomp >= "2.5"}
    return [
        {call.name for call in calls if not knows(release, call.libseccomp)}
        for release in sorted(releases)
    ]


def _lines(
    profile: dict[str, object], form: Format, named: Collection[str], whose: str, everywhere: bool
) -> dict[str, int]:
    """Return the line of each architecture that has one, by the names of every container."""
    listed = _architectures(profile, form, everywhere)
    lined = {key for name, key in _KEYS.items() if name in listed}
    lined |= {"x86_64"} if whose == IMPLIED else set()
    return {key: _largest(key, named) for key in lined}


def _between(before: Mapping[str, int], names: Collection[str]) -> set[str]:
    """Return the calls that are above a line, and would not be with ``names``.

    Where there was no line, there is nothing to keep.
    """
    found: set[str] = set()
    for key, old in before.items():
        new = _largest(key, names)
        if old >= 0:
            found |= {name for name, number in numbers()[key].items() if old < number <= new}
    return found


def _is_above(name: str, key: str, before: Mapping[str, int]) -> bool:
    """Tell whether runc answers ENOSYS to ``name`` on an architecture, or it is no call there.

    Companions that are not listed have nothing to lose; the native architecture always does.
    """
    number = numbers()[key].get(name)
    if number is None or (key not in before and key != "x86_64"):
        return True
    return 0 <= before.get(key, -1) < number


def _largest(key: str, names: Collection[str]) -> int:
    """Return the line; -1: there is none, as for a profile whose largest number is 0."""
    table = numbers()[key]
    largest = max((table[name] for name in names if name in table), default=-1)
    # x32's numbers are never 0, for the bit that they have.
    return largest if largest or key == "x32" else -1


def _named(profile: dict[str, object], form: Format) -> tuple[set[str], set[str]]:
    """Return the names of the rules that hold for every container, and of those for some."""
    found: dict[str, set[str]] = {core.ALWAYS: set(), core.SOMETIMES: set(), core.NEVER: set()}
    for index, rule in enumerate(core.rules(profile)):
        pointer = f"/syscalls/{index}"
        found[form.applies(rule, pointer)].update(form.names_of(rule, pointer))
    return found[core.ALWAYS], found[core.SOMETIMES]


def _architectures(profile: dict[str, object], form: Format, everywhere: bool) -> list[str]:
    """Return the architectures that containers' flat profiles list, on x86-64 or everywhere."""
    if form is DOCKER:
        return architectures(profile) if everywhere else architectures_on(profile, core.X86_64)
    return core.strings(profile, "architectures", "")


def _is_enosys(profile: dict[str, object]) -> bool:
    """Tell whether the default is ENOSYS itself: then it is the same on both sides."""
    if profile.get("defaultAction") != "SCMP_ACT_ERRNO":
        return False
    return profile.get("defaultErrno") == "ENOSYS" or profile.get("defaultErrnoRet") == ENOSYS


def _order(name: str) -> tuple[int, str]:
    return numbers()["x86_64"].get(name, FIRST), name
