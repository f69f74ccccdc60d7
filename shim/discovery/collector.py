"""What the sources of profiles are looked at with: it gathers places, uses and what went wrong."""

import contextlib
import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from shim.discovery.root import MAX_DEPTH, Root
from shim.errors import ShimError, counted
from shim.host.credentials import user
from shim.host.untrusted_files import Control
from shim.profile.document import MAX_BYTES
from shim.profile.yamltext.nodes import Node, NotYAML, parse

Use = tuple[str, str]
# Whose home directories are people's, as adduser(8) and useradd(8) have it.
_FIRST_USER, _NOBODY = 1000, 65534
# No profile lies there, and to read some of what does takes it away from others (/proc/kmsg).
_KERNELS = ("/proc", "/sys")


class ProfilePlace:
    """A file that is, or may be, a profile.

    ``own``: it lies where only profiles do; ``named``: by the user; ``kept``: why it must not be
    changed here. ``led`` are those on whose word it was looked at, beside root's and that of who
    runs us: who can change the file that names it. ``found``: nobody's word was needed.
    """

    __slots__ = ("found", "kept", "led", "named", "own", "shown", "uses")

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.uses: list[Use] = []
        self.named = False
        self.own = False
        self.kept = ""
        self.led: dict[Control, str] = {}
        self.found = False

    def join(self, other: "ProfilePlace") -> None:
        """Add what is known of the same file from elsewhere."""
        self.uses += other.uses
        self.own = self.own or other.own
        self.kept = self.kept or other.kept
        self.led |= other.led
        self.found = self.found or other.found

    def stays(self, control: Control) -> str:
        """Say why the file, which others can change as ``control`` has it, is to stay as it is.

        Empty: it is not. What a user's file names is changed only where it is that user's own.
        """
        if control.barred:
            return control.barred
        if self.found or control in self.led:
            return ""
        named, where = next(iter(self.led.items()), (Control(), ""))
        who = "others" if named.owner is None else user(named.owner)
        return f"only {where} names it, which {who} can change"


class Collector:
    """The gathering; paths are those inside of the root.

    Home directories of others are looked into only if ``homes`` says so.
    """

    def __init__(self, root: Root, *, homes: bool = False) -> None:
        self.root = root
        self.places: dict[str, ProfilePlace] = {}
        # Of the settings that were read: who else can change them.
        self._read: dict[str, Control] = {}
        self._noted: dict[tuple[str, str], None] = {}
        # Files that engines read and we could not: not as an engine would at least.
        self.bad: set[str] = set()
        # Filters that are no profile files: where (file, line), and what kind.
        self.filters: list[tuple[str, int, str]] = []
        own = ["/root"] if os.geteuid() == 0 else ["/root", os.path.expanduser("~")]
        others = [each for each in self._all_homes() if each not in own]
        self.homes = [*own, *(others if homes else ())]
        # Directories that are passed over wherever files are looked for.
        self.without = frozenset([*_KERNELS, *(() if homes else others)])
        self._unseen = () if homes else tuple(others)

    def note_homes(self, below: Iterable[str] = ("/",)) -> None:
        """Note the home directories below these that are not looked into."""
        above = tuple(f"{each.rstrip('/')}/" for each in below)
        count = sum(f"{each}/".startswith(above) for each in self._unseen)
        if count:
            told = counted(count, "home directory is", "home directories are")
            self.note("/home", f"{told} not looked into: --homes does")

    def used(self, path: str, who: str, file: str, line: int) -> None:
        """Note that ``who`` uses the profile ``path``, as ``file`` says."""
        place = self._place(path)
        if place:
            place.uses.append((who, f"{file}:{line}"))
            control = self._read[file]
            if control.trusted:
                place.found = True
            else:
                place.led.setdefault(control, file)

    def built_in(self, path: str, who: str) -> None:
        """Note that ``who`` uses the profile ``path`` without being told."""
        place = self._place(path)
        if place:
            place.uses.append((who, "(built in)"))
            place.found = True

    def candidate(
        self, path: str, *, own: bool = False, named: bool = False, kept: str = ""
    ) -> None:
        """Note a file that may be a profile."""
        place = self._place(path)
        if place:
            place.found = True
            place.own = place.own or own
            place.named = place.named or named
            place.kept = place.kept or kept

    def note(self, path: str, why: str, *, bad: bool = False) -> None:
        """Note what could not be looked at; ``bad``: it is a file that should have been."""
        self._noted.setdefault((path, why))
        if bad:
            self.bad.add(path)

    @property
    def notes(self) -> list[tuple[str, str]]:
        """Return what could not be looked at: path and why, each once."""
        return list(self._noted)

    def yaml(self, path: str, text: str) -> list[Node]:
        """Return the documents of a file's text; none, and it is noted, where that is not YAML."""
        try:
            return parse(text)
        except NotYAML as error:
            self.note(path, f"is not YAML: {error}", bad=True)
            return []

    def text(self, path: str) -> str | None:
        """Read a configuration file; None: there is none, or it is noted that it is unreadable."""
        try:
            if self.root.real(path).endswith("/dev/null"):  # how systemd masks a unit
                return None
            data, self._read[path] = self.root.word(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.note(path, error.strerror or str(error), bad=True)
            return None
        except ShimError as error:
            self.note(path, error.message, bad=True)
            return None
        if len(data) > MAX_BYTES:
            self.note(path, "is larger than 2 MiB: not looked at", bad=True)
            return None
        return data.decode("utf-8", "replace")

    def believed(self, path: str) -> bool:
        """Tell whether a configuration file that was read is root's word, or of who runs us."""
        return self._read[path].trusted

    def data(self, real: str) -> tuple[bytes, Control]:
        """Read the file with this true path, as ``Root.look_at`` does."""
        return self.root.look_at(self.root.shown(real))

    def files(self, directory: str, depth: int = MAX_DEPTH) -> Iterator[str]:
        """Yield the files under a directory, if there is one; what cannot be read is noted."""
        without = frozenset() if directory in self.without else self.without
        for each in self.root.files(directory, depth, without):
            if isinstance(each, OSError):
                self.note(str(each.filename), each.strerror or str(each))
            else:
                yield each

    def is_directory(self, path: str) -> bool:
        """Tell whether this is a directory."""
        return self.root.is_directory(path)

    def _all_homes(self) -> list[str]:
        """Return the directories in /home, and those that users have elsewhere."""
        homes = []
        with contextlib.suppress(OSError, ShimError):
            homes = [f"/home/{name}" for name, _ in self.root.entries("/home")]
        with contextlib.suppress(OSError, ShimError):
            for line in self.root.read("/etc/passwd").decode(errors="replace").splitlines():
                _, _, uid, _, _, home, *_ = [*line.split(":"), *[""] * 6]
                if uid.isdecimal() and _FIRST_USER <= int(uid) < _NOBODY and home.count("/") > 1:
                    homes.append(os.path.normpath(home))
        return list(dict.fromkeys(homes))

    def _place(self, path: str) -> ProfilePlace | None:
        try:
            real = self.root.real(path)
        except ShimError as error:
            self.note(path, error.message)
            return None
        if self.root.shown(real).startswith(tuple(f"{each}/" for each in _KERNELS)):
            self.note(path, "is the kernel's: not looked at")
            return None
        place = self.places.get(real)
        if place is None:
            place = self.places[real] = ProfilePlace(path)
        return place


class Lines:
    """The lines of a text, gone through once however many places in it are asked for."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends = [found.start() for found in re.finditer("\n", text)]
        self._firsts: dict[str, int] = {}

    def at(self, offset: int) -> int:
        """Return the number of the line that a character stands in, counted from one."""
        return bisect_left(self._ends, offset) + 1

    def first(self, pattern: str) -> int:
        """Return the number of the first line that ``pattern`` is found in, 1 if it is nowhere."""
        if pattern not in self._firsts:
            found = re.search(pattern, self._text, re.MULTILINE)
            self._firsts[pattern] = self.at(found.start()) if found else 1
        return self._firsts[pattern]
