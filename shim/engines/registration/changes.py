"""Changes of engines' files: planned, shown as a diff, made, recorded, rolled back.

The record, one file an engine, is written before the files are, so that a crash between the two
loses no original. It says of each file what was there before us and the sums of all that we wrote:
a file that still has one of these is given back byte for byte, one that somebody else has edited
since only loses what the engine's ``Without`` finds to be ours.
"""

import base64
import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shim.errors import ShimError, printable
from shim.host.untrusted_files import Reached, named, reach, secure
from shim.log import record as log_line
from shim.profile.diff import unified
from shim.transaction.rollback import undone
from shim.transaction.store import checksum

_LIMIT = 2 * 1024 * 1024

# Given a file, its content now and what it was before us (None: absent or not known), gives the
# content without our entries; None: nothing is left that is not ours.
Without = Callable[[Path, bytes, bytes | None], bytes | None]


class Edit(NamedTuple):
    """One file's content ``before`` and ``after``; None: no file. ``mode`` is for one made anew."""

    path: Path
    before: bytes | None
    after: bytes | None
    mode: int = 0o644


class Kept(NamedTuple):
    """What a file was before us (None: absent), and the SHA-256 of each content we gave it."""

    original: bytes | None
    written: tuple[str, ...]


class Record(NamedTuple):
    """What we changed for one engine: files by path, and the directories we made, outermost first.

    ``default`` tells whether we were made the default runtime.
    """

    files: dict[str, Kept]
    directories: tuple[str, ...]
    default: bool = False


def edit(path: Path, after: bytes | None, mode: int = 0o644) -> Edit:
    """Return the edit that makes ``path`` what ``after`` says, from what it is now."""
    return Edit(path, content(path), after, mode)


def content(path: Path) -> bytes | None:
    """Read a configuration file; None: there is none. ShimError: it is not one to be edited."""
    try:
        with reach(str(path)) as place:
            data = place.read(_LIMIT)
    except FileNotFoundError:
        return None
    if len(data) > _LIMIT:
        raise ShimError("is larger than 2 MiB: no configuration file is", subject=str(path))
    return data


def diff(edits: Iterable[Edit]) -> str:
    """Return the edits as unified diffs that ``patch -p1 -d /`` takes; empty: nothing changes."""
    return "".join(
        unified(_shown(each.before), _shown(each.after), printable(str(each.path)))
        for each in edits
        if each.before != each.after
    )


def apply(
    engine: str,
    edits: Sequence[Edit],
    without: Without,
    state: Path,
    log: str | None = None,
    *,
    default: bool = False,
) -> None:
    """Make the edits, all or none, and record in ``state`` how to take them back.

    ``default`` is recorded with them: whether they make us the default runtime.

    ShimError: a file is no longer what its edit says, another install runs, or it cannot be logged
    (to ``log``, by default the audit log). Files written before a failure are put back.
    """
    edits = _effective(edits)
    if not edits:
        return
    with _locked(state):
        _check(edits)
        old = recorded(engine, state)
        new = _grown(old, edits, without)._replace(default=old.default or default)
        _save(engine, new, state)
        try:
            _write_all("install", engine, edits, log)
        except BaseException:
            _save(engine, old, state)
            raise
        _save(engine, _pruned(new, edits), state)


def rolling_back(engine: str, places: Iterable[Path], without: Without, state: Path) -> list[Edit]:
    """Plan to undo all that is recorded for ``engine``, and our entries in ``places`` besides."""
    record = recorded(engine, state)
    edits = []
    for name in dict.fromkeys([*record.files, *map(str, places)]):
        path = Path(name)
        now = content(path)
        if now is None:
            continue
        kept = record.files.get(name)
        original = kept.original if kept else None
        before, there = checksum(original or b""), checksum(now)
        ours = [(before, each) for each in kept.written] if kept else []
        whole = undone(ours, there) == before != there
        after = original if whole else without(path, now, original)
        edits.append(Edit(path, now, after, stat.S_IMODE(path.stat().st_mode)))
    return _effective(edits)


def roll_back(engine: str, edits: Sequence[Edit], state: Path, log: str | None = None) -> None:
    """Make the edits that ``rolling_back`` planned; remove our directories, forget the record."""
    record = recorded(engine, state)
    if not edits and record == Record({}, ()):
        return
    with _locked(state):
        _check(edits)
        _write_all("uninstall", engine, edits, log)
        _remove_empty(record.directories)
        _save(engine, Record({}, ()), state)


def recorded(engine: str, state: Path) -> Record:
    """Read what is recorded for ``engine``; empty where nothing is. ShimError: it is damaged."""
    path = _record_path(engine, state)
    try:
        document = json.loads(path.read_bytes())
        kept = {
            name: Kept(
                None if each["original"] is None else base64.b64decode(each["original"]),
                tuple(each["written"]),
            )
            for name, each in document["files"].items()
        }
        return Record(kept, tuple(document["directories"]), bool(document.get("default")))
    except FileNotFoundError:
        return Record({}, ())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ShimError(
            "is damaged", subject=str(path), hint="move it away; our entries are found without it"
        ) from None


def _effective(edits: Iterable[Edit]) -> list[Edit]:
    """Leave out what changes nothing. Removals come last: they are what undoing does worst."""
    return sorted(
        (each for each in edits if each.before != each.after), key=lambda each: each.after is None
    )


def _check(edits: Iterable[Edit]) -> None:
    for each in edits:
        if content(each.path) != each.before:
            raise ShimError(
                "somebody else changed it meanwhile", subject=str(each.path), hint="try again"
            )


def _grown(old: Record, edits: Iterable[Edit], without: Without) -> Record:
    """Add to a record what ``edits`` are about to do."""
    kept = dict(old.files)
    directories = list(old.directories)
    for each in edits:
        name = str(each.path)
        known = kept.get(name)
        if known is None:
            known = Kept(each.before, ())
        elif each.before is None or checksum(each.before) not in known.written:
            # Somebody else has edited it since: the original is that edit without what is ours.
            now = each.before
            known = Kept(None if now is None else without(each.path, now, known.original), ())
        written = known.written
        if each.after is not None:
            written = tuple(dict.fromkeys([*written, checksum(each.after)]))
        kept[name] = Kept(known.original, written)
        if each.before is None:
            directories += [
                directory for directory in _missing(each.path) if directory not in directories
            ]
    return Record(kept, tuple(directories))


def _pruned(record: Record, edits: Iterable[Edit]) -> Record:
    """Leave out the files that the edits have made what they were before us."""
    back = {str(each.path) for each in edits if record.files[str(each.path)].original == each.after}
    return record._replace(files={k: v for k, v in record.files.items() if k not in back})


def _write_all(event: str, engine: str, edits: Iterable[Edit], log: str | None) -> None:
    done: list[Edit] = []
    directories: list[str] = []
    try:
        for each in edits:
            for directory in _missing(each.path) if each.after is not None else ():
                with _ours(directory) as place, named(directory):
                    os.mkdir(place.name, 0o755, dir_fd=place.directory)
                directories.append(directory)
            _write(each, event, engine, log)
            done.append(each)
    except BaseException as error:
        lost = []
        for each in reversed(done):
            back = each._replace(before=each.after, after=each.before)
            try:
                _write(back, f"{event}-undone", engine, log)
            except (ShimError, OSError):
                lost.append(str(each.path))
        _remove_empty(directories)
        if lost:
            raise ShimError(
                f"{error}; and these could not be put back: {', '.join(lost)}"
            ) from error
        raise


def _write(each: Edit, event: str, engine: str, log: str | None) -> None:
    """Make one edit, logged first: what cannot be logged is not done."""
    sums = {"sha256_before": each.before, "sha256_after": each.after}
    fields: dict[str, Any] = {
        "engine": engine,
        "file": os.path.realpath(each.path),
        **{key: checksum(data) for key, data in sums.items() if data is not None},
    }
    logged = False

    def before() -> None:
        nonlocal logged
        log_line(event, log=log, **fields)
        logged = True

    try:
        with _ours(each.path) as place:
            if each.after is None:
                place.remove(each.before or b"", before)
            elif each.before is None:
                place.create(each.after, each.mode, before)
            else:
                place.replace(each.after, each.before, before)
    except (ShimError, OSError) as error:
        if logged:  # a line must not stay uncontradicted that tells of what never happened
            log_line(f"{event}-failed", level="error", log=log, reason=str(error), **fields)
        raise


@contextlib.contextmanager
def _ours(path: Path | str) -> Iterator[Reached]:
    """Reach a file that nobody else can change. ShimError: somebody can, who should do this."""
    with reach(str(path)) as place:
        place.refuse(others=False)
        yield place


def _missing(path: Path) -> list[str]:
    """Return the directories that must be made for ``path``, outermost first."""
    directory = os.path.dirname(os.path.realpath(path))
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    return missing[::-1]


def _remove_empty(directories: Iterable[str]) -> None:
    for directory in reversed(list(directories)):
        # What others have put there keeps it.
        with contextlib.suppress(OSError, ShimError), _ours(directory) as place:
            os.rmdir(place.name, dir_fd=place.directory)


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """Keep other installs out; ``state`` is made, readable by its owner only."""
    secure(str(state), 0o700)
    fd = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ShimError(
                "another install or uninstall is at work", subject=str(state), hint="try again"
            ) from None
        yield
    finally:
        os.close(fd)
        _remove_empty([str(state.parent), str(state)])


def _save(engine: str, record: Record, state: Path) -> None:
    path = _record_path(engine, state)
    now = content(path)
    if not record.files and not record.directories:
        path.unlink(missing_ok=True)
        return
    document = {
        "files": {
            name: {
                "original": None
                if each.original is None
                else base64.b64encode(each.original).decode(),
                "sha256": None if each.original is None else checksum(each.original),
                "written": each.written,
            }
            for name, each in record.files.items()
        },
        "directories": record.directories,
        "default": record.default,
    }
    data = json.dumps(document, indent=1).encode() + b"\n"
    with _ours(path) as place:
        if now is None:
            place.create(data, 0o600, lambda: None)
        else:
            place.replace(data, now, lambda: None)


def _record_path(engine: str, state: Path) -> Path:
    return state / f"{engine}.json"


def _shown(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "backslashreplace")
