"""Documents and texts damaged at random, as the fuzzers need them."""

import json
import random
from typing import Any

ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**30, "", "x", "null", [], {}, [[]], [{}], {"": ""}, [None],
    {"path": "/bin/true"}, [{"path": "/bin/true"}], [1, "a"], "\u0000\u001b[31m\n", "\ud800",
    "é" * 9, {}, {}, [], None,
]  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return each member and element of a document as its holder and key."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    found: list[tuple[Any, Any]] = [(value, key) for key in keys]
    for key in keys:
        found += places(value[key])
    return found


def damaged(draw: random.Random, document: Any, most: int = 4) -> Any:
    """Return a copy of which up to ``most`` places are odd, gone or spelled otherwise."""
    copy = json.loads(json.dumps(document))
    for _ in range(draw.randint(0, most)):
        found = places(copy)
        if not found:
            break
        # What is far up is few, and decides more.
        holder, key = draw.choice(draw.choice([found, [each for each in found if each[0] is copy]]))
        if isinstance(holder, list):
            holder[key] = json.loads(json.dumps(draw.choice(ODD)))
            continue
        how = draw.randrange(4)
        if how == 0:
            del holder[key]
        elif how == 1:
            other = draw.choice([key.upper(), key.title(), f"{key}x", key.replace("s", "ſ")])
            holder[other] = holder[key] if draw.random() < 0.5 else holder.pop(key)
        else:
            holder[key] = json.loads(json.dumps(draw.choice(ODD)))
    return copy


def laid_out(draw: random.Random, document: Any) -> str:
    """Return the document as text in one of many layouts."""
    indent: Any = draw.choice([None, None, 0, 1, 4, "\t"])
    separators = draw.choice([None, (",", ":"), (" ,", " : ")])
    text = json.dumps(
        document, indent=indent, separators=separators, ensure_ascii=draw.random() < 0.7
    )
    return draw.choice(["", "\n", " \t\r\n"]) + text + draw.choice(["", "\n"])


def scarred(draw: random.Random, text: str, words: list[str]) -> str:
    """Return the text with up to two bits of it taken out, doubled, or one of ``words`` put in."""
    for _ in range(draw.choice([0, 0, 0, 0, 1, 2])):
        at = draw.randrange(len(text) + 1)
        if draw.random() < 0.5:
            text = text[:at] + draw.choice(words) + text[at:]
        else:
            end = min(len(text), at + draw.randint(1, 9))
            text = text[:at] + text[at:end] * draw.choice([0, 0, 2]) + text[end:]
    return text
