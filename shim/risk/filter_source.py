"""A filter to ask about calls: a process has it, or a runtime would load it of a profile.

Only a profile asks for libseccomp: what a process has can be read where there is none.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from shim import abi
from shim.catalog.table import OFFSETS
from shim.errors import ShimError
from shim.profile import docker
from shim.profile import evaluate as core
from shim.profile.document import DOCKER, Document, place, resolved
from shim.profile.jsontext import scanner
from shim.profile.unlisted_calls import unnamed
from shim.risk.verdict import OutOfTimeError, verdicts

if TYPE_CHECKING:
    from shim.profile.libseccomp import Names
    from shim.profile.model import Loader

NATIVE = "x86_64"
_AUDIT = {
    NATIVE: abi.AUDIT_ARCH_X86_64,
    "i386": abi.AUDIT_ARCH_I386,
    "x32": abi.AUDIT_ARCH_X86_64,  # it has a bit in its numbers
    "arm": abi.AUDIT_ARCH_ARM,
}


@dataclass(frozen=True)
class Rule:
    """A rule of a profile that names a call.

    ``where`` is its file, line and column, or what there is instead. ``lacks`` says why it does not
    hold for the container; empty: it holds. ``sometimes``: it depends on arguments.
    """

    where: str
    action: str
    lacks: str
    sometimes: bool


@dataclass(frozen=True)
class Subject:
    """What is asked about: ``programs`` in force, the newest first, and what they were made of.

    ``title`` names it. ``key`` is the catalogue's for its architecture. The rest is empty for what
    was read from a process: a ``document`` that ``loader`` loads, in a ``container`` (the keyword
    arguments of ``shim.profile.document.resolved``), the ``lines`` above which runc answers, and
    the ``architectures`` that have rules (None: not known).
    """

    title: str
    key: str
    programs: tuple[bytes, ...]
    document: Document | None = None
    loader: "Loader | None" = None
    container: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, int] = field(default_factory=dict)
    names: "Names | None" = None
    notes: tuple[str, ...] = ()
    architectures: frozenset[str] | None = None

    @property
    def file(self) -> str:
        """The profile's file, for commands; a word for it where there is none."""
        known = self.document is not None and self.document.text
        return self.document.where if known and self.document else "PROFILE"

    @property
    def audit(self) -> int:
        """The kernel's number for its architecture (audit.h)."""
        if self.key in _AUDIT:
            return _AUDIT[self.key]
        from shim.profile.compile import token_of

        return token_of(self.container["machine"])

    @property
    def is_listed(self) -> bool:
        """Tell whether the profile has rules for this architecture."""
        return self.architectures is None or self.key in self.architectures

    def of(self, key: str) -> "Subject":
        """Return it for the calls of another ABI of the same machine."""
        return replace(self, key=key)

    def number(self, number: int) -> int:
        """Return what filters see of the catalogue's ``number``."""
        return number + OFFSETS.get(self.key, 0)

    def verdicts(self, number: int) -> frozenset[int]:
        """Return what call ``number`` can be answered; none: it could not be decided."""
        try:
            return verdicts(self.programs, self.number(number), self.audit)
        except OutOfTimeError:
            return frozenset()

    def is_nameable(self, name: str) -> bool | None:
        """Tell whether a rule for ``name`` is taken; None: the libseccomp is not known."""
        return None if self.names is None else self.names.knows(name)

    def is_above_line(self, number: int) -> bool:
        """Tell whether runc itself answers call ``number`` ENOSYS, by no rule of the profile."""
        if not self.lines:
            return False
        from shim.profile.libseccomp import KEYS

        lines = [line for arch, line in self.lines.items() if KEYS.get(arch) == self.key]
        return bool(lines) and self.number(number) > lines[0]

    def rules(self, name: str) -> list[Rule]:
        """Return the rules of the profile that name a call, in their order."""
        if self.document is None:
            return []
        found = []
        form = self.document.format
        for index, rule in enumerate(core.rules(self.document.seccomp or {})):
            pointer = f"/syscalls/{index}"
            action = core.action_of(rule, "action", pointer)
            listed = form.names_of(rule, pointer)
            denying = action not in core.ALLOWING and core.denies(rule, listed, name)
            if name in listed or denying:
                lacks = docker.lacks(rule, pointer, **self.container) if form is DOCKER else ""
                shown = _action(rule, action)
                where = _where(self.document, pointer)
                found.append(Rule(where, shown, lacks, bool(rule.get("args"))))
        return found

    def may_be_enosys(self, name: str) -> bool:
        """Tell whether ``patch --enosys`` changes the profile's answer to a call."""
        if self.document is None:
            return True
        form, profile = self.document.format, self.document.seccomp or {}
        return name in unnamed(profile, form.names_of)[0]

    @property
    def default(self) -> str:
        """The default action, with its errno."""
        profile = self.document.seccomp if self.document else None
        return _action(profile, str(profile.get("defaultAction"))) if profile else ""


def of_profile(
    document: Document, loader: "Loader", container: dict[str, Any], key: str
) -> Subject:
    """Return what ``loader`` makes of a profile; ShimError: it starts no container with it."""
    from shim.host.libseccomp import about_unknown, unknown
    from shim.profile.compile import tokens
    from shim.profile.document import names as all_names
    from shim.profile.libseccomp import KEYS, Names
    from shim.profile.model import loaded, whole

    try:
        profile = resolved(document, **container)
        made = loaded(profile, loader)
    except ShimError as error:
        subject = f"{document.where} {error.subject}".strip()
        raise ShimError(error.message, subject=subject, hint=error.hint) from None
    library = f" with libseccomp {loader.libseccomp}" if loader.libseccomp[:1].isdigit() else ""
    title = f"{document.where}, as {loader.program} {loader.version}{library} loads it"
    told = about_unknown(unknown(all_names(document)))
    return Subject(
        title,
        key,
        (whole(made),),
        document,
        loader,
        container,
        made.lines,
        Names(loader.libseccomp),
        (told,) if told else (),
        None
        if profile is None
        else frozenset((key, *(KEYS.get(arch, "") for arch in tokens(profile)))),
    )


def _action(where: dict[str, Any], action: str) -> str:
    number = where.get("errnoRet", where.get("defaultErrnoRet", where.get("errno")))
    return f"{action} {number}" if number is not None else action


def _where(document: Document, pointer: str) -> str:
    """Name the place of a rule: file and line where its text is JSON, else what leads to it."""
    whole_pointer = document.format.pointer + pointer
    try:
        span = scanner.locate(document.text, [whole_pointer])[whole_pointer]
    except (scanner.NotJSON, KeyError, AttributeError):
        return f"{document.where} {whole_pointer}"
    return place(document.where, document.text, span.start).rpartition(":")[0]
