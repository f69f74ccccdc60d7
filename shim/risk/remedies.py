"""What a call meets in a filter: the answer in a word, its cause, and what helps. Pure."""

import errno
from collections.abc import Collection, Iterable
from typing import NamedTuple

from shim import abi
from shim.catalog import Syscall
from shim.profile.evaluate import ALLOWING
from shim.risk.filter_source import Subject

ALLOWED, ENOSYS, KILLED, SUPERVISED, UNDECIDED = (
    "allowed", "ENOSYS", "killed", "supervised", "undecided",
)  # fmt: skip
_UNLISTED = "the profile does not list this architecture, so that every call of it is refused"
_KILLING = (
    abi.SECCOMP_RET_KILL_PROCESS, abi.SECCOMP_RET_KILL_THREAD, abi.SECCOMP_RET_TRAP,
)  # fmt: skip


class Remedy(NamedTuple):
    """What helps: in words, and the command where one does."""

    text: str
    command: str = ""


class Answer(NamedTuple):
    """What ``subject`` answers one call.

    ``words`` are all the answers it can get, by its arguments; ``cause`` says which part of the
    profile or of its runtime gives them; ``nameable`` whether a rule can name the call (None: not
    known). ``remedies`` are empty where nothing is wrong.
    """

    call: Syscall
    number: int
    words: tuple[str, ...]
    cause: str
    nameable: bool | None
    remedies: tuple[Remedy, ...]

    @property
    def word(self) -> str:
        """All answers in one word or several."""
        return " or ".join(self.words)

    @property
    def is_gap(self) -> bool:
        """Tell whether some arguments get another answer than the kernel's own."""
        return self.words != (ALLOWED,)


def word(verdict: int) -> str:
    """Return the word for a filter's return value: allowed, ENOSYS, EPERM, ..., killed."""
    action = verdict & abi.SECCOMP_RET_ACTION_FULL
    if action in (abi.SECCOMP_RET_ALLOW, abi.SECCOMP_RET_LOG):
        return ALLOWED
    if action == abi.SECCOMP_RET_TRACE:
        return ENOSYS  # nobody traces (kernel/seccomp.c)
    if action == abi.SECCOMP_RET_USER_NOTIF:
        return SUPERVISED
    if action != abi.SECCOMP_RET_ERRNO:
        return KILLED
    number = min(verdict & abi.SECCOMP_RET_DATA, abi.MAX_ERRNO)
    return errno.errorcode.get(number, f"errno {number}")


def labels(verdicts: Iterable[int]) -> tuple[str, ...]:
    """Return the words of several, allowed first."""
    found = {word(verdict) for verdict in verdicts} or {UNDECIDED}
    return tuple(sorted(found, key=lambda each: (each != ALLOWED, each)))


def answer(subject: Subject, call: Syscall, exempt: Collection[str] = ()) -> Answer:
    """Return what ``subject`` answers ``call``, which its architecture has.

    The kernel lets calls that are ``exempt`` pass whatever the filter says.
    """
    number = call.numbers[subject.key]
    if call.name in exempt:
        why = "this kernel lets it pass every filter"
        return Answer(call, number, (ALLOWED,), why, subject.is_nameable(call.name), ())
    found = labels(subject.verdicts(number))
    nameable = subject.is_nameable(call.name)
    if found == (ALLOWED,):
        return Answer(call, number, found, _cause(subject, call, number), nameable, ())
    remedies = _remedies(subject, call, found, nameable)
    if found == (ENOSYS,) and call.kind == "program":
        remedies = (Remedy("nothing, since programs fall back to an older call"), *remedies)
    return Answer(call, number, found, _cause(subject, call, number), nameable, remedies)


def _cause(subject: Subject, call: Syscall, number: int) -> str:
    """Say which rule decides, and why no other does."""
    if not subject.programs:
        return "there is no filter"
    if subject.document is None:
        return "the filter that the process has"
    if subject.document.seccomp is None:
        return "there is no profile"
    if not subject.is_listed:
        return _UNLISTED
    rules = subject.rules(call.name)
    holding = [rule for rule in rules if not rule.lacks]
    if holding and subject.is_nameable(call.name) is False:
        return f"{holding[0].where} names it, but the runtime's libseccomp drops the name"
    if holding:
        some = ", for certain arguments" if holding[0].sometimes else ""
        return f"{holding[0].where}: {holding[0].action}{some}"
    why = f"{rules[0].where} {rules[0].lacks}" if rules else "no rule names it"
    if subject.is_above_line(number):
        return f"{why}: it is above every name of the profile, where runc answers ENOSYS"
    return f"{why}: the default action {subject.default}"


def _remedies(
    subject: Subject, call: Syscall, found: tuple[str, ...], nameable: bool | None
) -> tuple[Remedy, ...]:
    """Say what helps, the best first."""
    if not subject.is_listed:
        return (Remedy("list the architecture in the profile"),)
    rules = subject.rules(call.name)
    denied = [rule for rule in rules if rule.action.split()[0] not in ALLOWING and not rule.lacks]
    if any(rule.sometimes and not rule.lacks for rule in rules):
        command = f"seccomp-shim patch --override-deny --add {call.name} {subject.file}"
        return (Remedy("the profile's author allows it for certain arguments alone", command),)
    if denied:
        what = f"the profile's author denies it ({denied[0].where})"
        command = f"seccomp-shim patch --override-deny --add {call.name} {subject.file}"
        return (Remedy(what, command if call.kind == "program" else ""),)
    if call.kind == "kernel-injected":
        if nameable is False:
            what = "a name has no effect with this libseccomp; the wrapper needs none"
            return (Remedy(what, "seccomp-shim install ENGINE --default"),)
        return (Remedy("allow it", f"seccomp-shim patch {subject.file}"),)
    limited = [rule.lacks for rule in rules if rule.lacks]
    remedies = [Remedy(f"it {limited[0]}")] if limited else []
    if nameable is False:
        since = call.libseccomp or "a later one"
        remedies.append(Remedy(f"the name needs a runtime with libseccomp {since}"))
    else:
        remedies.append(Remedy("allow it", f"seccomp-shim patch --add {call.name} {subject.file}"))
    if not rules and ENOSYS not in found and subject.may_be_enosys(call.name):
        what = "or have programs fall back as on a kernel without it"
        remedies.append(Remedy(what, f"seccomp-shim patch --enosys {call.name} {subject.file}"))
    return tuple(remedies)
