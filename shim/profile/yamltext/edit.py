"""A rule put into a YAML text, so that all that is not new stays byte for byte.

Nothing is dumped again: the place is found through the parser's marks, and the rule is laid out
like the first one there. What the marks cannot promise (an alias elsewhere, a layout that nobody
thought of) shows when the result is read back, which ``shim.profile.contents`` always does.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from shim.errors import ShimError
from shim.profile.yamltext.nodes import Node

_ORDER = ("action", "names")
_BY_HAND = "edit it by hand"


class Splice(NamedTuple):
    """``text`` takes the place of what is between two offsets."""

    start: int
    end: int
    text: str


class YamlStyle(NamedTuple):
    """How a rule is laid out; ``step`` is how far the names' dashes stand right of their key."""

    order: Sequence[str]
    quote: str
    key_quote: str
    flow_names: bool
    step: int
    wide: int


def spliced(text: str, splices: Sequence[Splice]) -> str:
    """Make all ``splices``, whose offsets are those of the text as it is."""
    pieces, at = [], 0
    for each in sorted(splices):
        pieces += [text[at : each.start], each.text]
        at = each.end
    return "".join([*pieces, text[at:]])


def add_rule(text: str, marks: Sequence[int], profile: Node, rule: dict[str, object]) -> Splice:
    """Put ``rule`` (names and action) first among the rules of ``profile``, a mapping.

    ``marks`` are what ``dashes`` says of the text.
    """
    rules = profile.get("syscalls")
    if profile.alias or (rules and rules.alias):
        raise ShimError("its rules stand elsewhere, named by an alias", hint=_BY_HAND)
    newline = "\r\n" if "\r\n" in text else "\n"
    if rules is None:
        return _with_key(text, profile, rule, newline)
    if rules.kind == "scalar":  # null, in one of its spellings
        space = "" if rules.end > rules.start else " "
        return Splice(rules.start, rules.end, f"{space}[{_flow(rule, _bare(profile))}]")
    if not rules.items:
        inside = text.index("[", rules.start) + 1
        return Splice(inside, inside, _flow(rule, _bare(profile)))
    first = rules.items[0]
    if rules.style == "flow":
        lead = text[text.rfind("\n", 0, first.start) + 1 : first.start]
        between = f",{newline}{lead}" if lead.isspace() else ", "
        item = _flow(rule, _style(text, first, []))
        return Splice(first.start, first.start, item + between)
    return _in_block(text, marks, profile, rules, rule, newline)


def _in_block(
    text: str,
    marks: Sequence[int],
    profile: Node,
    rules: Node,
    rule: dict[str, object],
    newline: str,
) -> Splice:
    first = rules.items[0]
    dash = marks[bisect_right(marks, first.start) - 1]
    indent = " " * _column(text, dash)
    if first.kind == "mapping" and first.style == "flow":
        item = f"- {_flow(rule, _style(text, first, marks))}"
    else:
        item = _block(rule, _style(text, first, marks), indent, newline)
    line = dash - len(indent)
    if text[line:dash].strip(" "):
        return Splice(dash, dash, f"{item}{newline}{indent}")
    # A comment above the first rule is about that rule: the new one goes above the comment.
    key = next(name for name, value in profile.pairs if value is rules)
    under = text.find("\n", key.end) + 1
    comments = text[under:line].splitlines()
    if under > line or any(each.strip() and not each.lstrip().startswith("#") for each in comments):
        under = line
    return Splice(under, under, f"{indent}{item}{newline}")


def _with_key(text: str, profile: Node, rule: dict[str, object], newline: str) -> Splice:
    """Put the key ``syscalls`` into a profile that has none: behind ``defaultAction``."""
    style = _bare(profile)
    key = f"{style.key_quote}syscalls{style.key_quote}"
    default = profile.get("defaultAction")
    if default is None:
        raise ShimError("its default action stands elsewhere, behind a merge key", hint=_BY_HAND)
    first = profile.pairs[0][0]
    if profile.style == "flow":
        return Splice(first.start, first.start, f"{key}: [{_flow(rule, style)}], ")
    column = " " * _column(text, first.start)
    step = next(
        (_column(text, each.start) - len(column) for _, each in profile.pairs if _listed(each)), 2
    )
    indent = column + " " * step
    style = style._replace(step=step)
    lines = f"{key}:{newline}{indent}{_block(rule, style, indent, newline)}{newline}"
    end = text.find("\n", default.end)
    rest = text[default.end : end if end >= 0 else len(text)].strip()
    if "\n" in text[default.start : default.end] or not (rest == "" or rest.startswith("#")):
        return Splice(first.start, first.start, lines + column)
    if end < 0:
        return Splice(len(text), len(text), newline + column + lines.removesuffix(newline))
    return Splice(end + 1, end + 1, column + lines)


def _listed(node: Node) -> bool:
    return node.kind == "sequence" and node.style == "block" and not node.anchor


def _style(text: str, first: Node, marks: Sequence[int]) -> YamlStyle:
    """Read the layout off the first rule."""
    rule = first.alias or first
    action, names = rule.get("action"), rule.get("names")
    order = [str(key.value) for key, _ in rule.pairs if key.value in _ORDER]
    if sorted(order) != sorted(_ORDER) or not action or not names:
        order = list(_ORDER)
    style = YamlStyle(order, _quote(action), "", False, 0, 2)
    if rule.pairs:
        style = style._replace(key_quote=_quote(rule.pairs[0][0]))
    if first.style == "flow":
        return style
    dash = marks[bisect_right(marks, first.start) - 1]
    if text.find("\n", dash, first.start) < 0 and not first.anchor:
        style = style._replace(wide=first.start - dash)
    if not names or names.alias or not names.items:
        return style
    if names.style == "flow":
        return style._replace(flow_names=True)
    key = next(key for key, value in rule.pairs if value is names)
    dash = marks[bisect_right(marks, names.items[0].start) - 1]
    return style._replace(step=max(0, _column(text, dash) - _column(text, key.start)))


def _bare(profile: Node) -> YamlStyle:
    """Return the layout for a first rule: only its quotes can be like something."""
    key_quote = _quote(profile.pairs[0][0]) if profile.pairs else ""
    return YamlStyle(_ORDER, _quote(profile.get("defaultAction")), key_quote, False, 0, 2)


def _quote(node: Node | None) -> str:
    return node.style if node and node.kind == "scalar" and node.style in ("'", '"') else ""


def _block(rule: dict[str, object], style: YamlStyle, indent: str, newline: str) -> str:
    """Lay a rule out from its dash on; lines but the first begin with ``indent``."""
    inner = indent + " " * style.wide
    lines = []
    for key in dict.fromkeys([*style.order, *rule]):
        value = rule[key]
        name = f"{style.key_quote}{key}{style.key_quote}"
        if not isinstance(value, list):
            lines.append(f"{name}: {_quoted(value, style)}")
        elif style.flow_names:
            lines.append(f"{name}: {_flow_list(value, style)}")
        else:
            lead = newline + inner + " " * style.step
            lines.append(f"{name}:" + "".join(f"{lead}- {_quoted(each, style)}" for each in value))
    return "-" + " " * (style.wide - 1) + f"{newline}{inner}".join(lines)


def _flow(rule: dict[str, object], style: YamlStyle) -> str:
    members = []
    for name in dict.fromkeys([*style.order, *rule]):
        value = rule[name]
        laid_out = _flow_list(value, style) if isinstance(value, list) else _quoted(value, style)
        members.append(f"{style.key_quote}{name}{style.key_quote}: {laid_out}")
    return "{" + ", ".join(members) + "}"


def _flow_list(values: list[object], style: YamlStyle) -> str:
    return "[" + ", ".join(_quoted(each, style) for each in values) + "]"


def _quoted(value: object, style: YamlStyle) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{style.quote}{value}{style.quote}"


def _column(text: str, offset: int) -> int:
    return offset - text.rfind("\n", 0, offset) - 1
