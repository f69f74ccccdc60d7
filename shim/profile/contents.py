"""The profiles that a file holds: a JSON file is one, a YAML stream can hold several.

In a YAML stream these are profiles: resources of kind ``SeccompProfile`` of the
security-profiles-operator, and JSON profiles written as a scalar, such as a ConfigMap's ``data``
has. Resources in a list (``kind: List``, its ``items``) count too.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

from shim.errors import ShimError
from shim.profile import document
from shim.profile.document import OPERATOR, SECCOMP_PROFILE, Document, decode, place
from shim.profile.edit import TreeEdit, amended
from shim.profile.jsontext import render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.profile.yamltext.edit import Splice
    from shim.profile.yamltext.nodes import Node

Path = tuple[str | int, ...]

_LIKE_YAML = re.compile(r"^[ ]*[\"']?(apiVersion|kind)[\"']?[ ]*:|defaultAction", re.MULTILINE)
_LIKE_PROFILE = re.compile(r'"(defaultAction|syscalls)"\s*:')


class Part(NamedTuple):
    """One profile of a file: its ``name`` there, empty if it is the file, and where it stands."""

    name: str
    document: Document
    path: Path


class Contents(NamedTuple):
    """A file as it was read; ``trees`` are its documents, of JSON the one.

    In JSON the one part has no path.
    """

    where: str
    text: str
    parts: tuple[Part, ...]
    trees: tuple[object, ...]


def read(data: bytes, where: str) -> Contents:
    """Read every profile in a file; ShimError with file, line and column says what is wrong."""
    text = decode(data, where)
    flow = text.lstrip()[:1] in ("{", "[")
    if flow or not _LIKE_YAML.search(text):
        try:
            whole = document.read(data, where)
            return Contents(where, text, (Part("", whole, ()),), (whole.tree,))
        except ShimError as error:
            if not (flow and error.message.startswith("not valid JSON") and _is_flow(text)):
                raise
    roots, trees = _stream(text, where)
    parts: list[Part] = []
    for index, (root, tree) in enumerate(zip(roots, trees, strict=True)):
        for path, resource in _resources(tree):
            parts += _profiles(text, where, root, (index, *path), resource)
    if not parts:
        raise ShimError("holds no seccomp profile", subject=where)
    if max(Counter(part.name for part in parts).values()) > 1:
        parts = [part._replace(name=f"{part.name} (document {part.path[0]})") for part in parts]
    return Contents(where, text, tuple(parts), tuple(trees))


def apply(contents: Contents, edits: Sequence[Sequence[TreeEdit]]) -> Contents:
    """Make the ``edits`` of each part and read the result back; ShimError: it is not what they say.

    In YAML nothing but rules can be added.
    """
    if not any(edits):
        return contents
    if not contents.parts[0].path:
        [part], [only] = contents.parts, edits
        patched = render.apply(part.document, only)
        parts = (part._replace(document=patched),)
        return Contents(contents.where, patched.text, parts, (patched.tree,))
    pairs = list(zip(contents.parts, edits, strict=True))
    if any(_takes_one(part) and len(each) > 1 for part, each in pairs):
        first = [each[:1] if _takes_one(part) else each for part, each in pairs]
        rest = [each[1:] if _takes_one(part) else () for part, each in pairs]
        return apply(apply(contents, first), rest)
    from shim.profile.yamltext.edit import spliced
    from shim.profile.yamltext.nodes import dashes

    roots, _ = _stream(contents.text, contents.where)
    marks = dashes(contents.text)
    trees: list[Any] = deepcopy(list(contents.trees))
    splices = []
    for part, each in zip(contents.parts, edits, strict=True):
        if each:
            root = roots[int(part.path[0])]
            splice, value = _edited(contents.text, marks, root, part, each)
            splices.append(splice)
            _put(trees, part.path, value)
    after = read(spliced(contents.text, splices).encode(), contents.where)
    if list(after.trees) != trees:
        raise ShimError(
            "its layout could not be kept", subject=contents.where, hint="edit it by hand"
        )
    return after


def _takes_one(part: Part) -> bool:
    """Tell whether the part is YAML, in which one rule is added at a time."""
    return part.document.format is SECCOMP_PROFILE


def _edited(
    text: str, marks: Sequence[int], root: "Node", part: Part, edits: Sequence[TreeEdit]
) -> "tuple[Splice, object]":
    """Return what changes in the text, and what the value at the part's place becomes.

    ``marks`` are the offsets of the dashes in the text.
    """
    from shim.profile.yamltext.edit import add_rule
    from shim.profile.yamltext.embedded import changed

    where = part.document.where
    node = root.at(part.path[1:])
    try:
        if node is None or node.alias:
            raise ShimError("stands elsewhere, named by an alias", hint="edit it by hand")
        if part.document.format is not SECCOMP_PROFILE or node.kind == "scalar":
            after = render.apply(part.document, edits).text
            return changed(text, node, after), after
        spec = node.get("spec")
        if spec is None or any(each.op != "add" for each in edits):
            raise ShimError("names are not taken out of YAML", hint="edit it by hand")
        [edit] = edits
        rule = edit.value[0] if isinstance(edit.value, list) else edit.value
        value = amended(part.document.tree, edits)
        return add_rule(text, marks, spec, rule), value  # type: ignore[arg-type]  # plan makes dicts
    except ValueError:
        raise ShimError("its layout could not be kept", subject=where) from None
    except ShimError as error:
        raise ShimError(error.message, subject=error.subject or where, hint=error.hint) from None


def _stream(text: str, where: str) -> "tuple[list[Node], list[object]]":
    from shim.profile.yamltext import nodes

    try:
        roots = nodes.parse(text)
        return roots, [nodes.tree(root) for root in roots]
    except nodes.NotYAML as error:
        at = place(where, text, error.offset)
        raise ShimError(f"not valid YAML: {error}", subject=at) from None


def _is_flow(text: str) -> bool:
    """Tell a YAML document in braces from JSON with a mistake in it."""
    from shim.profile.yamltext import nodes

    try:
        trees = [nodes.tree(root) for root in nodes.parse(text)]
    except nodes.NotYAML:
        return False
    return any(isinstance(tree, dict) and "kind" in tree for tree in trees)


def _resources(tree: object) -> Iterator[tuple[Path, object]]:
    """Return a document, or each item of a list of resources, with the way to it."""
    items = tree.get("items") if isinstance(tree, dict) else None
    if (
        isinstance(tree, dict)
        and str(tree.get("kind")).endswith("List")
        and isinstance(items, list)
    ):
        yield from ((("items", index), item) for index, item in enumerate(items))
    else:
        yield (), tree


def _profiles(text: str, where: str, root: "Node", path: Path, resource: object) -> Iterator[Part]:
    keys = resource if isinstance(resource, dict) else {}
    metadata = keys.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    title = " ".join(str(each) for each in (keys.get("kind"), name) if each is not None)
    if keys.get("kind") == "SeccompProfile":
        if not str(keys.get("apiVersion")).startswith(OPERATOR):
            raise ShimError(
                f"SeccompProfile of {keys.get('apiVersion')!a} is none that is known here",
                subject=where,
            )
        here = document.checked(keys, text, where, lambda pointer: _offset(root, path[1:], pointer))
        yield Part(title, here._replace(where=f"{where} ({title})"), path)
        return
    for way, value in _texts(resource, path):
        if value.lstrip()[:1] == "{" and _LIKE_PROFILE.search(value):
            inner = "/".join(str(step) for step in way[len(path) :])
            full = f"{title} {inner}".strip()
            yield Part(full, document.read(value.encode(), f"{where} ({full})"), way)


def _texts(value: object, path: Path) -> Iterator[tuple[Path, str]]:
    """Return every string in a tree with the way to it."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _texts(each, (*path, index))
    elif isinstance(value, dict):
        for key, each in value.items():
            if isinstance(key, str):
                yield from _texts(each, (*path, key))


def _offset(root: "Node", path: Path, pointer: str) -> int | None:
    node = root.at(path)
    for step in pointer.split("/")[1:]:
        if node is not None:
            node = node.alias or node
            node = node.at([int(step) if node.kind == "sequence" else step])
    return node.start if node else None


def _put(trees: list[Any], path: Path, value: object) -> None:
    *way, last = path
    where: Any = trees
    for step in way:
        where = where[step]
    where[last] = value
