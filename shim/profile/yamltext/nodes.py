"""Strict YAML whose values can be found again in their text: what ``scan`` is for JSON.

The tree is made of a parser's events, one by one, so that nesting and aliases have limits before
they have a price. Stricter than a YAML library: no duplicate keys, no keys that are no scalars.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import yaml
from yaml.constructor import SafeConstructor
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

# As deep as JSON may be; and what aliases may make of a document before it is taken for an attack.
MAX_DEPTH = 64
MAX_VALUES = 500_000
# What is longer is no number that anybody wrote: reading 1:1:1:... (base 60, YAML 1.1) as one takes
# time by the square of its length.
_MAX_NUMBER = 100

# libyaml's parser is ten times as fast; both give the same events and marks.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_RESOLVER: Any = Resolver()
_CONSTRUCTOR = SafeConstructor()
_TYPED: dict[str, Callable[[ScalarNode], object]] = {
    "tag:yaml.org,2002:null": _CONSTRUCTOR.construct_yaml_null,
    "tag:yaml.org,2002:bool": _CONSTRUCTOR.construct_yaml_bool,
    "tag:yaml.org,2002:int": _CONSTRUCTOR.construct_yaml_int,
    "tag:yaml.org,2002:float": _CONSTRUCTOR.construct_yaml_float,
}


class NotYAML(Exception):  # noqa: N818 - named as scan.NotJSON is
    """What is wrong, and at which character offset of the text."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class Node:
    """A value and its place; an alias is the node it names, seen from another ``start``.

    ``kind`` is scalar, sequence or mapping. ``style`` is that of a scalar (empty: plain), or
    ``flow`` or ``block``. ``pairs`` are a mapping's keys and values, ``items`` a sequence's.
    """

    __slots__ = (
        *("_index", "alias", "anchor", "end", "items"),
        *("kind", "pairs", "start", "style", "value"),
    )

    def __init__(self, kind: str, start: int, style: str, anchor: str | None) -> None:
        self.kind = kind
        self.start = start
        self.end = start
        self.style = style
        self.anchor = anchor
        self.alias: Node | None = None
        self.value: object = None
        self.items: list[Node] = []
        self.pairs: list[tuple[Node, Node]] = []
        self._index: dict[object, Node] | None = None

    def get(self, key: str) -> "Node | None":
        """Return the value under ``key``, where it stands itself; None: there is none."""
        if self._index is None or len(self._index) != len(self.pairs):
            self._index = {name.value: value for name, value in self.pairs}
        return self._index.get(key)

    def at(self, path: Sequence[str | int]) -> "Node | None":
        """Follow keys and indexes; None: it leads nowhere, or through an alias."""
        node: Node | None = self
        for step in path:
            if node is None or node.alias:
                return None
            if isinstance(step, str):
                node = node.get(step)
            else:
                node = node.items[step] if step < len(node.items) else None
        return node


def parse(text: str) -> list[Node]:
    """Return the root of every document of a YAML stream. NotYAML: it is none."""
    try:
        return _Composer(_LOADER(text)).documents()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(filter(None, [error.context, error.problem]))
        raise NotYAML(what, _offset(mark)) from None
    except yaml.reader.ReaderError:
        found = yaml.reader.Reader.NON_PRINTABLE.search(text)
        at = found.start() if found else 0
        raise NotYAML(f"the character {text[at : at + 1]!a} must not be in YAML", at) from None
    except (yaml.YAMLError, ValueError) as error:
        raise NotYAML(" ".join(str(error).split()), 0) from None


def tree(root: Node) -> object:
    """Return what the document says, as JSON would: aliases and merge keys followed."""
    left = MAX_VALUES

    def value(node: Node, depth: int) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise NotYAML(f"its aliases make more than {MAX_VALUES} values of it", root.start)
        if depth > MAX_DEPTH:
            raise NotYAML(f"nested more than {MAX_DEPTH} levels deep", node.start)
        real = node.alias or node
        if real.kind == "sequence":
            return [value(item, depth + 1) for item in real.items]
        if real.kind == "scalar":
            return real.value
        members: dict[object, object] = {}
        for key, each in real.pairs:
            if _merges(key):
                sources = (each.alias or each).items or [each]
                for source in sources:
                    merged = value(source, depth + 1)
                    if not isinstance(merged, dict):
                        raise NotYAML("a merge key needs a mapping", each.start)
                    for name, what in merged.items():
                        members.setdefault(name, what)
        own = {key.value: value(each, depth + 1) for key, each in real.pairs if not _merges(key)}
        return {**members, **own}

    return value(root, 0)


def dashes(text: str) -> list[int]:
    """Return the offsets of all dashes that begin an element of a block sequence."""
    tokens: Iterator[Any] = yaml.scan(text, Loader=_LOADER)
    return [_offset(each.start_mark) for each in tokens if isinstance(each, yaml.BlockEntryToken)]


def _merges(key: Node) -> bool:
    return key.value == "<<" and not key.style


def _offset(mark: Any) -> int:
    return int(mark.index) if mark else 0


class _Composer:
    """Nodes out of events, without recursion."""

    def __init__(self, events: Any) -> None:
        self.events = events
        self.anchors: dict[str | None, Node] = {}
        self.open: list[Node] = []
        self.keys: list[Node | None] = []
        self.known: list[set[object]] = []

    def documents(self) -> list[Node]:
        roots: list[Node] = []
        while self.events.check_event():
            event = self.events.get_event()
            if isinstance(event, yaml.DocumentStartEvent):
                self.anchors = {}
            elif isinstance(event, yaml.CollectionEndEvent):
                node = self.open.pop()
                self.keys.pop()
                self.known.pop()
                node.end = _offset(event.end_mark)
            elif isinstance(event, yaml.NodeEvent):
                node = self._node(event)
                if self.open:
                    self._add(node)
                else:
                    roots.append(node)
                if isinstance(event, yaml.CollectionStartEvent):
                    if len(self.open) == MAX_DEPTH:
                        self._fail(f"nested more than {MAX_DEPTH} levels deep", node)
                    self.open.append(node)
                    self.keys.append(None)
                    self.known.append(set())
        return roots

    def _node(self, event: Any) -> Node:
        start = _offset(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            node = Node("alias", start, "", None)
            node.end = _offset(event.end_mark)
            node.alias = self.anchors.get(event.anchor)
            if node.alias is None:
                self._fail(f"no anchor is named {event.anchor!a} here", node)
            if any(node.alias is parent for parent in self.open):
                self._fail("an alias names what it is in", node)
            return node
        if isinstance(event, yaml.ScalarEvent):
            node = Node("scalar", start, event.style or "", event.anchor)
            node.end = _offset(event.end_mark)
            node.value = _scalar(event, node)
        else:
            kind = "mapping" if isinstance(event, yaml.MappingStartEvent) else "sequence"
            node = Node(kind, start, "flow" if event.flow_style else "block", event.anchor)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _add(self, node: Node) -> None:
        parent, key = self.open[-1], self.keys[-1]
        if parent.kind == "sequence":
            parent.items.append(node)
        elif key is None:
            if node.kind != "scalar":
                self._fail("a key must be a scalar, written where it stands", node)
            if node.value in self.known[-1]:
                self._fail(f"the key {node.value!a} appears twice in the same mapping", node)
            self.known[-1].add(node.value)
            self.keys[-1] = node
        else:
            parent.pairs.append((key, node))
            self.keys[-1] = None

    def _fail(self, message: str, node: Node) -> NoReturn:
        raise NotYAML(message, node.start)


def _scalar(event: Any, node: Node) -> object:
    """Return a scalar's value: a string, unless it is plain or tagged and reads otherwise."""
    tag = event.tag
    if tag is None or tag == "!":
        tag = _RESOLVER.resolve(ScalarNode, event.value, event.implicit)
    typed = _TYPED.get(str(tag))
    if typed is None or (len(event.value) > _MAX_NUMBER and event.tag is None):
        return event.value
    try:
        if len(event.value) > _MAX_NUMBER:
            raise ValueError("too long")
        value = typed(ScalarNode(tag, event.value))
    except (ValueError, LookupError, ArithmeticError, yaml.YAMLError):
        raise NotYAML(
            f"{event.value[:_MAX_NUMBER]!a} is not what its tag says", node.start
        ) from None
    # NaN differs from itself: what it says is kept instead.
    return value if value == value else event.value  # noqa: PLR0124
