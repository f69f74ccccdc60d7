"""What documents show of commands: the blocks, and what matches their output.

In the shown output a number stands for any number, blanks for any blanks, and ``...`` for any text,
several lines of it where it is a line of its own.
"""

import re

from support.checkout import CHECKOUT

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_WILD = re.compile(r"(^\.\.\.\n|\.\.\.|\d+(?:\.\d+)*|[ \t]+)", re.MULTILINE)


def blocks(document: str) -> list[str]:
    """Return the console sessions of a file of the checkout."""
    return _BLOCK.findall((CHECKOUT / document).read_text())


def pattern(shown: str) -> str:
    """Return the regular expression of what ``shown`` stands for."""
    parts = []
    for part in _WILD.split(shown):
        if part == "...\n":
            parts.append(r"(?:.*\n)*?")
        elif part == "...":
            parts.append(".*")
        elif part[:1].isdigit():
            parts.append(r"\d+(?:\.\d+)*")
        elif part[:1] in {" ", "\t"}:
            parts.append(r"[ \t]+")
        else:
            parts.append(re.escape(part))
    return "".join(parts)
