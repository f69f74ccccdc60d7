"""What the sources of profiles are looked at with: it gathers places, uses and what went wrong."""

import os
import re
from bisect import bisect_left
from collections.abc import Iterator

from shim.errors import ShimError
from shim.fleet.root import MAX_DEPTH, Root
from shim.profile.document import MAX_BYTES

Use = tuple[str, str]


class Place:
    """A file that is, or may be, a profile.

    ``own``: it lies where only profiles do; ``named``: by the user; ``kept``: why it must not be
    changed here.
    """

    __slots__ = ("kept", "named", "own", "shown", "uses")

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.uses: list[Use] = []
        self.named = False
        self.own = False
        self.kept = ""


class Look:
    """The gathering; paths are those inside of the root."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.places: dict[str, Place] = {}
        self._noted: dict[tuple[str, str], None] = {}
        # Files that engines read and we could not: not as an engine would at least.
        self.bad: set[str] = set()
        # Filters that are no profile files: where (file, line), and what kind.
        self.filters: list[tuple[str, int, str]] = []

    def used(self, path: str, who: str, where: str) -> None:
        """Note that ``who`` uses the profile ``path``, as ``where`` (file and line) says."""
        place = self._place(path)
        if place:
            place.uses.append((who, where))

    def lying(self, path: str, *, own: bool = False, named: bool = False, kept: str = "") -> None:
        """Note a file that may be a profile."""
        place = self._place(path)
        if place:
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

    def text(self, path: str) -> str | None:
        """Read a configuration file; None: there is none, or it is noted that it is unreadable."""
        try:
            if self.root.real(path).endswith("/dev/null"):  # how systemd masks a unit
                return None
            data = self.root.read(path)
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

    def data(self, real: str) -> bytes:
        """Read the file with this true path, as ``Root.read`` does."""
        return self.root.read(self.root.shown(real))

    def files(self, folder: str, depth: int = MAX_DEPTH) -> Iterator[str]:
        """Give the files under a folder, if there is one; what cannot be read is noted."""
        for each in self.root.files(folder, depth):
            if isinstance(each, OSError):
                self.note(str(each.filename), each.strerror or str(each))
            else:
                yield each

    def is_folder(self, path: str) -> bool:
        """Tell whether this is a folder."""
        try:
            return os.path.isdir(self.root.real(path))
        except ShimError:
            return False

    def homes(self) -> list[str]:
        """Give the home folders that are where home folders usually are."""
        try:
            names = [entry.name for entry in self.root.entries("/home")]
        except OSError:
            names = []
        return ["/root", *(f"/home/{name}" for name in names)]

    def _place(self, path: str) -> Place | None:
        try:
            real = self.root.real(path)
        except ShimError as error:
            self.note(path, error.message)
            return None
        place = self.places.get(real)
        if place is None:
            place = self.places[real] = Place(path)
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
