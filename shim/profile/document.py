"""A profile as it came: its text, its tree, and which format it is in.

Formats are told apart by what is in them, never by the file's name:

- a whole OCI ``config.json`` has ``ociVersion``, ``linux`` or ``process``; its profile is
  ``linux.seccomp``;
- a Docker profile has ``archMap``, or a rule with one of ``name``, ``comment``, ``includes``,
  ``excludes``;
- what remains and has ``defaultAction`` or ``syscalls`` is taken for a flat OCI ``linux.seccomp``.
  Docker reads such a file too, and the plain rule that is added to it means the same to both.

Another format needs a ``Format`` of its own and a branch in ``detect``; one that is not JSON also
needs a reader beside ``scan``.
"""

from collections.abc import Callable
from typing import NamedTuple

from shim.errors import ShimError
from shim.profile import check, docker, scan
from shim.profile import says as core

# The largest known profile is under 100 kB, a config.json with a long environment a few hundred.
MAX_BYTES = 2 * 1024 * 1024

_DOCKER_ONLY = {"name", "comment", "includes", "excludes"}
_PROFILE = {"defaultAction", "syscalls", "architectures"}


class Format(NamedTuple):
    """How one format is read: where the profile is in the tree, and what it says of a call."""

    name: str
    pointer: str
    check: check.Check
    says: Callable[[dict[str, object], str], tuple[str, str]]
    names_of: Callable[[dict[str, object], str], list[str]]
    applies: Callable[[dict[str, object], str], str]


OCI = Format("oci", "", check.oci, core.says, core.names_of, core.always)
DOCKER = Format("docker", "", check.docker, docker.says, docker.names_of, docker.applies)
CONFIG = Format(
    "config.json", "/linux/seccomp", check.config, core.says, core.names_of, core.always
)


class Document(NamedTuple):
    """A profile as it was read, and ``where`` it came from: a name for messages."""

    where: str
    text: str
    tree: dict[str, object]
    format: Format

    @property
    def seccomp(self) -> dict[str, object] | None:
        """The profile inside the tree; None: there is none."""
        return seccomp_of(self.tree, self.format)


def read(data: bytes, where: str) -> Document:
    """Read a profile strictly; ShimError with file, line and column says what is wrong with it."""
    if len(data) > MAX_BYTES:
        limit = MAX_BYTES // (1024 * 1024)
        raise ShimError(f"is larger than {limit} MiB: no profile is", subject=where)
    text = _decode(data, where)
    try:
        tree = scan.parse(text)
    except scan.NotJSON as error:
        raise ShimError(
            f"not valid JSON: {error}", subject=_at(where, text, error.offset)
        ) from None
    try:
        root = core.table(tree, "")
        form = detect(root)
        form.check(root, "")
    except ShimError as error:
        raise _placed(error, "", text, where) from None
    try:
        # What no single value shows: keys that exclude each other, a missing default.
        form.says(seccomp_of(root, form) or {}, "")
    except ShimError as error:
        raise _placed(error, form.pointer, text, where) from None
    return Document(where, text, root, form)


def detect(tree: dict[str, object]) -> Format:
    """Tell the format of a tree by its content; ShimError: it is no profile."""
    if not {"ociVersion", "linux", "process"}.isdisjoint(tree):
        return CONFIG
    syscalls = tree.get("syscalls")
    rules = syscalls if isinstance(syscalls, list) else []
    keys = {key.casefold() for rule in rules if isinstance(rule, dict) for key in rule}
    if "archmap" in {key.casefold() for key in tree} or not _DOCKER_ONLY.isdisjoint(keys):
        return DOCKER
    if tree and _PROFILE.isdisjoint(tree):
        raise ShimError("is no profile: has none of defaultAction, syscalls, archMap, linux")
    return OCI


def seccomp_of(tree: dict[str, object], form: Format) -> dict[str, object] | None:
    """Give the profile inside the tree; None: there is none."""
    value: object = tree
    for key in form.pointer.split("/")[1:]:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else None


def _decode(data: bytes, where: str) -> str:
    if data.startswith(b"\xef\xbb\xbf"):
        raise ShimError(
            "begins with a byte order mark, which container runtimes refuse",
            subject=f"{where}:1:1",
            hint="save it as UTF-8 without one",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise ShimError("not valid UTF-8", subject=_at(where, before, len(before))) from None


def _placed(error: ShimError, prefix: str, text: str, where: str) -> ShimError:
    """Turn an error on a JSON pointer into one on file, line and column."""
    pointer = error.subject if error.subject.startswith("/") else ""
    places = scan.locate(text, [prefix + pointer])
    while not places:  # a key that is missing: show the object that lacks it
        pointer = pointer.rpartition("/")[0]
        places = scan.locate(text, [prefix + pointer])
    [place] = places.values()
    message = f"{error.subject} {error.message}" if error.subject else error.message
    return ShimError(message, subject=_at(where, text, place.start), hint=error.hint)


def _at(where: str, text: str, offset: int) -> str:
    line = text.count("\n", 0, offset) + 1
    column = offset - text.rfind("\n", 0, offset)
    return f"{where}:{line}:{column}"
