"""What a filter answers the calls of its machine's other ABIs: i386 and x32, or 32-bit arm.

Any program can make them where the kernel has them: 64-bit code, too, makes a call of i386 by
``int 0x80`` (arch/x86/entry/entry_64_compat.S), and one of x32 by a bit in the number.
"""

from collections import Counter
from typing import Any, NamedTuple

from shim.catalog.table import numbers
from shim.errors import ShimError
from shim.host.kernel_calls import is_served, present
from shim.risk.filter_source import Subject
from shim.risk.remedies import ALLOWED, KILLED, labels
from shim.risk.verdict import within

# By a machine's own ABI the others, and whose they are.
ABIS = {
    "x86_64": {"i386": "32-bit programs", "x32": "64-bit programs with 32-bit pointers"},
    "aarch64": {"arm": "32-bit programs"},
}
_SECONDS = 30.0  # of processor time, for each
_SEVERAL = "by arguments"


class Foreign(NamedTuple):
    """The answers to an ABI's calls, how often each; ``served``: the kernel has it, if known."""

    key: str
    programs: str
    served: bool | None
    answers: dict[str, int]

    @property
    def whole(self) -> str:
        """Return the one answer to every call; empty: there are several."""
        return next(iter(self.answers)) if len(self.answers) == 1 else ""

    def line(self) -> str:
        """Say it in a line."""
        if self.served is False:
            return f"{self.programs}: this kernel has no call of theirs"
        if self.whole:
            what = {ALLOWED: "passes", KILLED: "kills"}.get(self.whole, f"gets {self.whole}")
            return f"{self.programs}: every call {what}"
        told = ", ".join(f"{count} {word}" for word, count in self.answers.items())
        return f"{self.programs}: {told} (--arch {self.key} lists them)"

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "architecture": self.key,
            "programs": self.programs,
            "served": self.served,
            "answers": self.answers,
            "whole": self.whole or None,
        }


def foreign(subject: Subject) -> list[Foreign]:
    """Return what ``subject`` answers the other ABIs of its machine; of one of them nothing."""
    found = []
    for key, programs in ABIS.get(subject.key, {}).items():
        other = subject.of(key)
        listed = numbers()[key]
        names = present(key).names
        with within(_SECONDS):
            each = (labels(other.verdicts(listed[name])) for name in names)
            counts = Counter(one[0] if len(one) == 1 else _SEVERAL for one in each)
        served = is_served(key)
        ordered = sorted(counts.items(), key=lambda pair: (pair[0] != ALLOWED, -pair[1]))
        found.append(Foreign(key, programs, served, dict(ordered)))
    return found


def of_abi(subject: Subject, key: str) -> Subject:
    """Return ``subject`` for another ABI of its machine. ShimError: it has no such."""
    others = ABIS.get(subject.key, {})
    if key == subject.key:
        return subject
    if key not in others:
        known = ", ".join((subject.key, *others))
        raise ShimError("is no ABI of this filter's machine", subject=key, hint=f"it has {known}")
    return subject.of(key)
