"""What the kernel has and a filter withholds: every call's answer, and the gaps newest first."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from shim.catalog import every
from shim.catalog.table import numbers, since
from shim.host.kernel_calls import Present
from shim.risk.filter_source import Subject
from shim.risk.foreign import foreign
from shim.risk.remedies import ALLOWED, ENOSYS, KILLED, Answer, answer
from shim.risk.verdict import within

# Since then libraries and profiles have lagged behind kernels; what is older is denied on purpose.
RECENT = (3, 17)
# Of processor time for all calls, which take a live filter of Docker's half a second; who loads
# an intricate one could make it a minute for each of its filters.
_SECONDS = 60.0


class Gaps(NamedTuple):
    """The answers to all calls that the kernel has, newest first."""

    answers: tuple[Answer, ...]

    def counted(self) -> dict[str, int]:
        """Return how many calls get each kind of answer."""
        kinds = {ALLOWED: 0, ENOSYS: 0, "errno": 0, KILLED: 0, "other": 0, "unnameable": 0}
        for each in self.answers:
            kinds[kind(each)] += 1
            kinds["unnameable"] += each.is_gap and each.nameable is False
        return kinds

    def recent(self) -> list[Answer]:
        """Return the gaps since ``RECENT``."""
        return [each for each in self.answers if each.is_gap and since(each.call) >= RECENT]

    def older(self) -> list[Answer]:
        """Return the gaps before ``RECENT``."""
        return [each for each in self.answers if each.is_gap and since(each.call) < RECENT]


def kind(each: Answer) -> str:
    """Return which kind of answer it is: what programs make of it."""
    if each.words in ((ALLOWED,), (ENOSYS,), (KILLED,)):
        return each.words[0]
    if len(each.words) == 1 and each.words[0].startswith(("E", "errno")):
        return "errno"
    return "other"


def gaps(subject: Subject, present: Present) -> Gaps:
    """Return what ``subject`` answers the calls that are ``present``; in limited time."""
    calls = (every()[name] for name in present.names & numbers()[subject.key].keys())
    with within(_SECONDS):
        found = [answer(subject, call, present.exempt) for call in calls]
    return Gaps(tuple(sorted(found, key=_age)))


def _age(each: Answer) -> tuple[tuple[int, ...], int]:
    major, minor, *_ = (*since(each.call), 0, 0)
    return (-major, -minor), -each.number


def commands(answers: Iterable[Answer], file: str) -> list[tuple[str, str]]:
    """Return what to do about several gaps: a text and a command each, alike ones together."""
    found = list(answers)
    programs = [each for each in found if each.call.kind == "program"]
    broken = [each for each in programs if ENOSYS not in each.words]
    steps = []
    if [each for each in broken if each.cause.startswith("no rule")]:
        steps.append(
            (
                "have programs fall back, as without the calls (nothing is allowed)",
                f"seccomp-shim patch --enosys unnamed {file}",
            )
        )
    nameable = [each.call.name for each in programs if each.nameable is not False]
    if nameable:
        steps.append(("or allow a call, by its risk", f"seccomp-shim patch --add NAME {file}"))
    if any(each.call.kind == "kernel-injected" for each in found):
        steps.append(
            (
                "let what the kernel itself makes processes call pass",
                "seccomp-shim install ENGINE --default",
            )
        )
    return steps


def document(subject: Subject, present: Present, found: Gaps) -> dict[str, Any]:
    """Return the JSON document."""
    return {
        "filter": subject.title,
        "architecture": subject.key,
        "foreign": [each.document() for each in foreign(subject)],
        "runtime": None
        if subject.loader is None
        else {
            "program": subject.loader.program,
            "version": subject.loader.version,
            "libseccomp": subject.loader.libseccomp or None,
        },
        "kernel": {"calls": len(present.names), "source": present.source},
        "counts": found.counted(),
        "notes": list(subject.notes),
        "calls": [row(each) for each in found.answers],
    }


def row(each: Answer) -> dict[str, Any]:
    """Return one call as JSON."""
    call = each.call
    return {
        "name": call.name,
        "number": each.number,
        "since": call.kernel or None,
        "class": call.kind,
        "answers": list(each.words),
        "kind": kind(each),
        "cause": each.cause,
        "nameable": each.nameable,
        "libseccomp": call.libseccomp or None,
        "users": call.users or None,
        "risk": call.risk or None,
        "remedies": [
            {"text": remedy.text, "command": remedy.command or None} for remedy in each.remedies
        ],
    }
