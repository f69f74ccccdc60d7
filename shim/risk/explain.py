"""All there is to know of one call: since when, who uses it, what it meets, and what helps."""

from typing import Any, NamedTuple

from shim.bpf.program import decode
from shim.catalog import Syscall, every
from shim.catalog.table import names
from shim.errors import ShimError
from shim.host.kernel_calls import Present
from shim.risk.filter_source import Rule, Subject
from shim.risk.gaps import row
from shim.risk.refused_arguments import refused
from shim.risk.remedies import Answer, answer, word


class Explained(NamedTuple):
    """One call in a filter; ``answer`` is None where its architecture has no such call.

    ``present`` tells whether the kernel has it. Where it gets several answers, ``arguments`` are
    those other than allowed, each with its condition.
    """

    call: Syscall
    answer: Answer | None
    present: bool
    source: str
    rules: tuple[Rule, ...]
    arguments: tuple[tuple[str, str], ...]


def find(word: str, key: str) -> Syscall:
    """Return the call that ``word`` names, or numbers on architecture ``key``. ShimError: none."""
    from difflib import get_close_matches

    if word.isdecimal():
        name = names(key).get(int(word), "")
        if not name:
            hint = (
                "a newer kernel than the catalogue may have it: a rule can only be written by name"
            )
            raise ShimError(f"is no call's number on {key}", subject=word, hint=hint)
        return every()[name]
    plain = word.lower().removeprefix("__x64_").removeprefix("__nr_").removeprefix("sys_")
    if plain in every():
        return every()[plain]
    near = get_close_matches(plain, every())
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    raise ShimError("is no system call of any kernel that we know", subject=word, hint=hint)


def explain(subject: Subject, present: Present, call: Syscall) -> Explained:
    """Return what there is to know of ``call`` where ``subject`` is in force."""
    found = answer(subject, call, present.exempt) if subject.key in call.numbers else None
    arguments: tuple[tuple[str, str], ...] = ()
    if found and len(found.words) > 1:
        programs = [decode(each) for each in subject.programs]
        listed = refused(programs, subject.number(found.number), subject.audit)
        arguments = tuple((word(verdict), when) for verdict, when in listed)
    rules = tuple(subject.rules(call.name))
    return Explained(call, found, call.name in present.names, present.source, rules, arguments)


def document(subject: Subject, told: Explained) -> dict[str, Any]:
    """Return the JSON document."""
    call = told.call
    return {
        "filter": subject.title,
        "architecture": subject.key,
        "name": call.name,
        "numbers": call.numbers,
        "present": told.present,
        "source": told.source,
        "call": row(told.answer) if told.answer else None,
        "rules": [rule_row(rule) for rule in told.rules],
        "default": subject.default or None,
        "arguments": [{"answer": word, "when": when} for word, when in told.arguments],
        "notes": list(subject.notes),
    }


def rule_row(rule: Rule) -> dict[str, Any]:
    """Return one rule as JSON."""
    return {
        "where": rule.where,
        "action": rule.action,
        "holds": not rule.lacks,
        "lacks": rule.lacks or None,
        "arguments": rule.sometimes,
    }
