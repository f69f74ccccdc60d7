"""Every profile of a host: where it is, who uses it, what it says."""

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from shim.discovery.collector import Collector
from shim.discovery.profile_state import FileState, PatchOptions, ProfileState, assess
from shim.discovery.root import Root
from shim.discovery.sources import compose, engines, kubernetes, units
from shim.errors import ShimError
from shim.host.effect import NOTHING_KNOWN, Effect, together
from shim.host.packages import INSTEAD, owners, why_kept
from shim.host.untrusted_files import Control
from shim.profile.edit import Finding
from shim.transaction.store import NOTHING, checksum

# From this many different contents on, a second process is worth its start.
_MANY = 64
# The format of a unit's SystemCallFilter=, which is systemd's own.
UNIT = "systemd"


class FoundProfile(NamedTuple):
    """One profile. ``profile`` names it in a file of several; ``uses`` are who and where.

    ``kept`` says why the file is not to be changed by us, empty if it may be. ``unknown`` are names
    in it that are no call of any kernel.
    """

    file: str
    profile: str
    format: str
    state: str
    reason: str
    uses: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    kept: str
    unknown: tuple[str, ...] = ()


class ProfileFile(NamedTuple):
    """A file with profiles: its true path, its content's checksum, and what patch makes of it.

    One that is not there yet (``NOTHING``) overrides another, which belongs to a package.
    """

    real: str
    shown: str
    before: str
    verdict: FileState
    kept: str


class Survey(NamedTuple):
    """All that was found, the files behind it, and what could not be looked at: path and why.

    ``bad`` are the files that no engine could use, or that should tell of profiles and cannot be
    read.
    """

    found: list[FoundProfile]
    files: list[ProfileFile]
    notes: list[tuple[str, str]]
    bad: frozenset[str] = frozenset()


def survey(
    root: Root,
    paths: Sequence[str] | None,
    options: PatchOptions,
    *,
    extra: Sequence[str] = (),
    homes: bool = False,
    packaged: bool = False,
) -> Survey:
    """Look at ``paths`` and nothing else, or, with None, everywhere engines look; judge it.

    What is at ``extra`` is looked at besides. With ``homes`` the home directories of users are
    looked into as well. With ``packaged`` files that belong to a package may be changed like
    others.
    """
    collector = _looked(root, paths, extra, homes)
    contents, unread = _contents(collector)
    verdicts = _judged(contents, options)
    shown = {real: root.shown(real) for real in contents.names}
    needing = [shown[real] for real, name in contents.names.items() if verdicts[name].after]
    owned = {} if packaged else owners(needing, root.top)
    found: list[FoundProfile] = []
    files: list[ProfileFile] = []
    for real, place in sorted(collector.places.items()):
        where = place.shown
        uses = tuple(dict.fromkeys(place.uses))
        if real in unread:
            found.append(
                FoundProfile(where, "", "", "invalid", unread[real], uses, (), "unreadable")
            )
            continue
        name = contents.names.get(real)
        if name is None:
            continue
        verdict = verdicts[name]
        if not verdict.profiles:
            if not (uses or place.named or place.own or _like_profile(contents.data[name])):
                continue
            reason = _without(verdict.error, contents.first[name])
            found.append(FoundProfile(where, "", "", "invalid", reason, uses, (), "invalid"))
            continue
        kept = place.kept or place.stays(contents.controls[real])
        kept = kept or _without(verdict.error, contents.first[name])
        if not kept and (owner := owned.get(shown[real])):
            idle = _is_idle(verdict, options)
            # A copy keeps the package's later versions from the engines: not for nothing.
            instead = "" if idle else INSTEAD.get(shown[real], "")
            new = _free(root, instead) if instead else ""
            made = bool(new) and paths is None
            if made:
                files.append(ProfileFile(new, instead, NOTHING, verdict, ""))
            kept = why_kept(shown[real], owner, instead if new else "", made=made, idle=idle)
        files.append(ProfileFile(real, where, name, verdict, kept))
        found += [_found(where, each, uses, kept) for each in verdict.profiles]
    for path, line, what in collector.filters:
        use = (("systemd", f"{path}:{line}"),)
        found.append(FoundProfile(path, "", UNIT, "not judged", what, use, (), "systemd's own"))
    bad = collector.bad.union(each.file for each in found if each.state == "invalid")
    return Survey(found, files, collector.notes, frozenset(bad))


def _is_idle(verdict: FileState, options: PatchOptions) -> bool:
    """Tell whether what patch makes of a file would have no effect under any runtime here."""
    names = [one.syscall for each in verdict.profiles for one in each.findings if one.changed]
    return together(names, options.effects) == "none"


def _free(root: Root, path: str) -> str:
    """Return the true path of a file that could be made where only root can; empty: it cannot."""
    try:
        with root.reach(path) as place:
            return place.path if place.info is None and place.control.trusted else ""
    except (OSError, ShimError):
        return ""


def _looked(
    root: Root, paths: Sequence[str] | None, extra: Sequence[str], homes: bool
) -> Collector:
    """Gather the places; of those at ``paths`` also who uses them, as engines' settings say."""
    everything = Collector(root, homes=homes)
    for source in (engines, kubernetes, compose, units):
        source.collect(everything)
    if paths is None:
        everything.note_homes()
        for path in extra:
            _named(everything, path)
        return everything
    named = Collector(root, homes=homes)
    named.note_homes(paths)
    for path in (*paths, *extra):
        _named(named, path)
    for real, place in named.places.items():
        if real in everything.places:
            place.join(everything.places[real])
    return named


class _Contents(NamedTuple):
    """Content by checksum, checksum by path, and the path that each content was first seen at.

    ``controls``, by path, say who else can change a file.
    """

    data: dict[str, bytes]
    names: dict[str, str]
    first: dict[str, str]
    controls: dict[str, Control]


def document(found: FoundProfile, effects: Mapping[str, Effect]) -> dict[str, object]:
    """Return a profile as ``find --json`` prints it, with ``effects`` of names as on its host."""
    return {
        "file": found.file,
        "profile": found.profile or None,
        "format": found.format or None,
        "state": found.state,
        "reason": found.reason,
        "used_by": [{"who": who, "where": where} for who, where in found.uses],
        "calls": {
            each.syscall: {
                "verdict": each.verdict,
                "reason": each.reason,
                "effect": effects.get(each.syscall, NOTHING_KNOWN).word,
            }
            for each in found.findings
        },
        "left_alone": found.kept or None,
        "unknown_names": found.unknown,
    }


def _named(collector: Collector, path: str) -> None:
    """Look at what the user named: a file is a profile or tells of some, a directory holds such."""
    if collector.is_directory(path):
        for each in collector.files(path):
            if each.endswith((".yaml", ".yml")):
                kubernetes.manifest(collector, each)
                compose.composition(collector, each)
            collector.candidate(each)
        return
    before = len(collector.places)
    kubernetes.manifest(collector, path)
    compose.composition(collector, path)
    if len(collector.places) == before:
        collector.candidate(path, named=True)


def _contents(collector: Collector) -> tuple[_Contents, dict[str, str]]:
    contents = _Contents({}, {}, {}, {})
    unread: dict[str, str] = {}
    for real, place in collector.places.items():
        try:
            data, control = collector.data(real)
        except OSError as error:
            if place.uses or place.named:
                unread[real] = error.strerror or str(error)
            elif not isinstance(error, FileNotFoundError):
                collector.note(place.shown, error.strerror or str(error))
            continue
        except ShimError as error:
            if place.uses or place.named or place.own:
                unread[real] = error.message
            else:
                collector.note(place.shown, error.message)
            continue
        if b"\0" in data[:1024] and not (place.uses or place.named):
            continue
        if not (place.uses or place.named or place.own or _like_profile(data)):
            continue
        name = checksum(data)
        contents.names[real] = name
        contents.controls[real] = control
        contents.data.setdefault(name, data)
        contents.first.setdefault(name, place.shown)
    return contents, unread


def _judged(contents: _Contents, options: PatchOptions) -> dict[str, FileState]:
    """Judge each content once."""
    work = [(data, contents.first[name], options) for name, data in contents.data.items()]
    if len(work) < _MANY:
        verdicts: Iterable[FileState] = [assess(*each) for each in work]
    else:
        with ProcessPoolExecutor() as pool:
            verdicts = list(pool.map(_assessed, work, chunksize=16))
    return dict(zip(contents.data, verdicts, strict=True))


def _assessed(work: tuple[bytes, str, PatchOptions]) -> FileState:
    return assess(*work)


def _found(
    where: str, judged: ProfileState, uses: tuple[tuple[str, str], ...], kept: str
) -> FoundProfile:
    reason = f"{judged.reason}; {kept}" if kept else judged.reason
    profile, form, state, _, findings, unknown = judged
    return FoundProfile(where, profile, form, state, reason, uses, findings, kept, unknown)


def _like_profile(data: bytes) -> bool:
    return bool(re.search(rb"defaultAction|\"syscalls\"|SeccompProfile", data))


def _without(error: str, where: str) -> str:
    """Return an error without the path it begins with: another file can have the same content."""
    return error.removeprefix(where).lstrip(": ")
