"""Random texts of config.json, most of them odd, and how Go and crun's C library read them."""

import json
import random
from typing import Any

# An object is a list of members, so that it can say a thing twice.
Pairs = list[tuple[str, Any]]

_NAMES = ("read", "write", "uretprobe", "test-syscall-400", "clone3")
_ODD: list[Any] = [
    None, True, False, 0, 1, -1, "", "x", "SCMP_ACT_ALLOW", {}, [], [0], [""], [None], [[]], [{}],
    {"a": 1}, {"names": ["read"]},
]  # fmt: skip
_NUMBERS = ("1e400", "-0", "1.50", "1E2", "12345678901234567890123", "0.1e-400", "-1e-7", "NaN")
_SPACES = ("", "", "", " ", "\n", "\t", " \r\n ", "  ")


class Number:
    """A number as it is written."""

    def __init__(self, text: str) -> None:
        """Keep the text."""
        self.text = text


def pairs(value: Any) -> Any:
    """Turn objects into lists of members marked as such."""
    if isinstance(value, dict):
        return Members((key, pairs(each)) for key, each in value.items())
    return [pairs(each) for each in value] if isinstance(value, list) else value


class Members(list[tuple[str, Any]]):
    """The members of an object, in order."""


def config(rng: random.Random) -> Any:
    """Make the config.json that most engines would write, some of its parts missing."""
    entry = {"path": "/bin/true", "args": ["true"], "env": [], "timeout": 3}
    rules: list[dict[str, Any]] = [
        {
            "names": rng.sample(_NAMES, rng.randint(0, 2)),
            "action": rng.choice(("SCMP_ACT_ALLOW", "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO")),
            **(
                {"args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}
                if rng.random() < 0.2
                else {}
            ),
        }
        for _ in range(rng.randint(0, 3))
    ]
    seccomp: dict[str, Any] = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    if rng.random() < 0.5:
        seccomp["architectures"] = ["SCMP_ARCH_X86_64"]
    document = {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {"args": ["sh"], "env": ["A=\u00e9/", "B=\\"]},
        "hooks": {stage: [entry] for stage in ("createRuntime", "poststart") if rng.random() < 0.5},
        "annotations": {"org.example": "x"},
        "linux": {"namespaces": [{"type": "mount"}], "seccomp": seccomp},
    }
    for key in ("hooks", "annotations", "root"):
        if rng.random() < 0.3:
            del document[key]
    return pairs(document)


def mutated(rng: random.Random, value: Any) -> Any:
    """Change one random place so that readers may differ about it, or be at a loss."""
    if isinstance(value, Members) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        key, inner = value[at]
        kind = rng.random()
        if kind < 0.55:
            value[at] = key, mutated(rng, inner)
        elif kind < 0.65:
            value.insert(
                rng.randint(0, len(value)), (key, rng.choice((inner, pairs(rng.choice(_ODD)))))
            )
        elif kind < 0.75:
            value[at] = recased(rng, key), inner
        elif kind < 0.82:
            value.insert(rng.randint(0, len(value)), (recased(rng, key), pairs(rng.choice(_ODD))))
        elif kind < 0.87:
            value[at] = f"{key}\0{rng.choice(('', 'x'))}", inner
        elif kind < 0.92:
            value.insert(at, (f"{key}\0", pairs({})))
        else:
            value.insert(
                at, (rng.choice(("", "\u017f", "x", "\U0001f600")), Number(rng.choice(_NUMBERS)))
            )
        return value
    if isinstance(value, list) and not isinstance(value, Members) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        value[at] = mutated(rng, value[at])
        return value
    if rng.random() < 0.05:
        for _ in range(rng.choice((5, 90, 1200))):
            value = [value]
        return value
    return pairs(rng.choice(_ODD))


def recased(rng: random.Random, key: str) -> str:
    """Write a key otherwise: Go takes it for the same one."""
    folded = {"s": "\u017f", "k": "\u212a"}
    letters = [rng.choice((letter, letter.upper(), folded.get(letter, letter))) for letter in key]
    return "".join(letters)


def text(rng: random.Random, value: Any) -> str:
    """Write a document with odd spacing, and keys and strings escaped at random."""

    def space() -> str:
        return rng.choice(_SPACES)

    if isinstance(value, Number):
        return value.text
    if isinstance(value, Members):
        inner = f"{space()},{space()}".join(
            f"{string(rng, key)}{space()}:{space()}{text(rng, each)}" for key, each in value
        )
        return f"{{{space()}{inner}{space()}}}"
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], list) and not isinstance(value[0], Members):
            depth = 0  # no recursion where it is deep
            while isinstance(value, list) and not isinstance(value, Members) and len(value) == 1:
                value, depth = value[0], depth + 1
            return "[" * depth + text(rng, value) + "]" * depth
        return (
            f"[{space()}{f'{space()},{space()}'.join(text(rng, each) for each in value)}{space()}]"
        )
    return string(rng, value) if isinstance(value, str) else json.dumps(value)


def string(rng: random.Random, value: str) -> str:
    """Write a string, now and then with escapes that need not be."""
    if rng.random() < 0.9:
        return json.dumps(value, ensure_ascii=rng.random() < 0.5)
    letters = [
        f"\\u{ord(each):04x}"
        if ord(each) < 0x10000 and rng.random() < 0.5
        else json.dumps(each)[1:-1]
        for each in value
    ]
    return f'"{"".join(letters)}"'


def config_text(rng: random.Random) -> str:
    """Make a text of config.json with up to three oddities, and now and then a broken one."""
    document = config(rng)
    for _ in range(rng.randint(0, 3)):
        document = mutated(rng, document)
    made = text(rng, document)
    if rng.random() < 0.1:
        at = rng.randrange(len(made) + 1)
        made = (
            made[:at]
            + rng.choice(("", "}", "{", ",", '"', "\0", "x", "[", "\ufeff"))
            + made[at + rng.randint(0, 2) :]
        )
    if rng.random() < 0.05:
        made += rng.choice((" ", "\n", "{}", ",", "null"))
    return made


# --- how others read it ------------------------------------------------------------------------


def by_go(members: Any, known: tuple[str, ...]) -> dict[str, Any]:
    """Read an object as encoding/json reads it into a struct: in any case, the last one counts."""
    found = {}
    for key, value in members if isinstance(members, Members) else ():
        for name in known:
            if key.casefold() == name.casefold() and value is not None:
                found[name] = value
    return found


def by_crun(members: Any, known: tuple[str, ...]) -> dict[str, Any]:
    """Read an object as crun's library does: to the letter, up to a NUL, the first one counts."""
    found: dict[str, Any] = {}
    for key, value in members if isinstance(members, Members) else ():
        name = key.partition("\0")[0]
        if name in known and value is not None:
            found.setdefault(name, value)
    return found


def parsed(made: str) -> Any:
    """Parse a text into members."""
    return json.loads(made, object_pairs_hook=Members)
