"""A profile as it came: its text, its tree, and which format it is in.

Formats are told apart by what is in them, never by the file's name:

- a whole OCI ``config.json`` has ``ociVersion``, ``linux`` or ``process``; its profile is
  ``linux.seccomp``;
- a Docker profile has ``archMap``, or a rule with one of ``name``, ``comment``, ``includes``,
  ``excludes``;
- a ``SeccompProfile`` of the security-profiles-operator has that for its ``kind``; its profile is
  ``spec``;
- what remains and has ``defaultAction`` or ``syscalls`` is taken for a flat OCI ``linux.seccomp``.
  Docker reads such a file too, and the plain rule that is added to it means the same to both.

Another format needs a ``Format`` of its own and a branch in ``detect``. What is no JSON, or holds
several profiles, is for ``shim.profile.contents``.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

from shim.errors import ShimError
from shim.profile import docker
from shim.profile import evaluate as core
from shim.profile import validate as check
from shim.profile.jsontext import scanner
from shim.profile.spelling import spelled

# The largest known profile is under 100 kB, a config.json with a long environment a few hundred.
MAX_BYTES = 2 * 1024 * 1024

_DOCKER_ONLY = {"name", "comment", "includes", "excludes"}
_PROFILE = {"defaultAction", "syscalls", "architectures"}


class Format(NamedTuple):
    """How one format is read: where the profile is in the tree, and what it says of a call."""

    name: str
    pointer: str
    check: check.Check
    evaluate: Callable[[dict[str, object], str], tuple[str, str]]
    names_of: Callable[[dict[str, object], str], list[str]]
    applies: Callable[[dict[str, object], str], str]


OCI = Format("oci", "", check.oci, core.evaluate, core.names_of, core.always)
DOCKER = Format("docker", "", check.docker, docker.evaluate, docker.names_of, docker.applies)
CONFIG = Format(
    "config.json", "/linux/seccomp", check.config, core.evaluate, core.names_of, core.always
)

SECCOMP_PROFILE = Format(
    "SeccompProfile", "/spec", check.resource, core.evaluate, core.names_of, core.always
)
OPERATOR = "security-profiles-operator.x-k8s.io/"


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
    """Read a JSON profile strictly; ShimError with file, line and column says what is wrong."""
    text = decode(data, where)
    if not text.strip():
        raise ShimError("the file is empty", subject=where)
    try:
        tree = scanner.parse(text)
    except scanner.NotJSON as error:
        raise ShimError(
            f"not valid JSON: {error}",
            subject=place(where, text, error.offset),
            hint="it is a Helm template: render it first (helm template)" if "{{" in text else "",
        ) from None
    return checked(tree, text, where, lambda pointer: _offset(text, pointer))


def checked(tree: object, text: str, where: str, offset: Callable[[str], int | None]) -> Document:
    """Make a document of a tree that was read from ``text``; ShimError: it is no valid profile.

    ``offset`` tells where in the text a JSON pointer's value begins; None: there is none.
    """
    prefix = ""
    try:
        root = core.table(tree, "")
        form, root = _detected(root)
        form.check(root, "")
        # What no single value shows: keys that exclude each other, a missing default.
        prefix = form.pointer
        form.evaluate(seccomp_of(root, form) or {}, "")
    except ShimError as error:
        raise _placed(error, prefix, text, where, offset) from None
    return Document(where, text, root, form)


def _detected(tree: dict[str, object]) -> tuple[Format, dict[str, object]]:
    """Tell the format of a tree, and give it with its keys as the readers of that format do."""
    if tree.get("kind") is None and {"ociVersion", "linux", "process"}.isdisjoint(tree):
        tree = core.table(spelled(tree), "")
    return detect(tree), tree


def detect(tree: dict[str, object]) -> Format:
    """Tell the format of a tree by its content; ShimError: it is no profile."""
    if tree.get("kind") == "SeccompProfile" and str(tree.get("apiVersion")).startswith(OPERATOR):
        return SECCOMP_PROFILE
    if not {"ociVersion", "linux", "process"}.isdisjoint(tree):
        return CONFIG
    syscalls = tree.get("syscalls")
    rules = syscalls if isinstance(syscalls, list) else []
    keys = {str(key).casefold() for rule in rules if isinstance(rule, dict) for key in rule}
    if "archmap" in {str(key).casefold() for key in tree} or not _DOCKER_ONLY.isdisjoint(keys):
        return DOCKER
    if tree and _PROFILE.isdisjoint(tree):
        raise ShimError("is no profile: has none of defaultAction, syscalls, archMap, linux")
    return OCI


def resolved(
    document: Document, *, capabilities: Collection[str], machine: str, kernel: tuple[int, int]
) -> dict[str, object] | None:
    """Return the flat ``linux.seccomp`` of a profile in any format; ShimError names its file."""
    if document.format is not DOCKER:
        return document.seccomp
    try:
        return docker.resolve(
            document.tree, capabilities=capabilities, machine=machine, kernel=kernel
        )
    except ShimError as error:
        where = f"{document.where} {error.subject}".strip()
        raise ShimError(error.message, subject=where, hint=error.hint) from None


def names(document: Document) -> list[str]:
    """Return the names of all rules of a document that was read, each once."""
    found: dict[str, None] = {}
    for index, rule in enumerate(core.rules(document.seccomp or {})):
        found |= dict.fromkeys(document.format.names_of(rule, f"/syscalls/{index}"))
    return list(found)


def seccomp_of(tree: dict[str, object], form: Format) -> dict[str, object] | None:
    """Return the profile inside the tree; None: there is none."""
    value: object = tree
    for key in form.pointer.split("/")[1:]:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else None


def decode(data: bytes, where: str) -> str:
    """Return the text of a file that could be a profile; ShimError: it could not."""
    if len(data) > MAX_BYTES:
        limit = MAX_BYTES // (1024 * 1024)
        raise ShimError(f"is larger than {limit} MiB: no profile is", subject=where)
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
        raise ShimError("not valid UTF-8", subject=place(where, before, len(before))) from None


def place(where: str, text: str, offset: int) -> str:
    """Name a place in a text: file, line and column, counted from one."""
    line = text.count("\n", 0, offset) + 1
    column = offset - text.rfind("\n", 0, offset)
    return f"{where}:{line}:{column}"


def _offset(text: str, pointer: str) -> int | None:
    places = scanner.locate(text, [pointer])
    return places[pointer].start if places else None


def _placed(
    error: ShimError, prefix: str, text: str, where: str, offset: Callable[[str], int | None]
) -> ShimError:
    """Turn an error on a JSON pointer into one on file, line and column."""
    pointer = error.subject if error.subject.startswith("/") else ""
    found = offset(prefix + pointer)
    while found is None:  # a key that is missing: show the object that lacks it
        pointer = pointer.rpartition("/")[0]
        found = offset(prefix + pointer)
    message = f"{error.subject} {error.message}" if error.subject else error.message
    return ShimError(message, subject=place(where, text, found), hint=error.hint)
