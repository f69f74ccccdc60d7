"""All profiles of a file, planned and edited in one go."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from shim.catalog import Syscall
from shim.profile.contents import Contents, Part, apply
from shim.profile.edit import Finding, TreeEdit, plan
from shim.profile.enosys_line import NOBODY


class Changed(NamedTuple):
    """One profile of a file: its edits, and what was found of each call."""

    part: Part
    edits: list[TreeEdit]
    findings: list[Finding]


class Patched(NamedTuple):
    """A file as it would be: its ``text``, and what is done to each of its profiles."""

    text: str
    profiles: list[Changed]

    @property
    def changed(self) -> bool:
        """Tell whether anything is to be done."""
        return any(each.edits for each in self.profiles)

    @property
    def findings(self) -> list[Finding]:
        """Return what was found, of all profiles."""
        return [finding for each in self.profiles for finding in each.findings]


def planned(
    contents: Contents,
    calls: Iterable[Syscall],
    states: Mapping[str, str],
    when: str = "present",
    override_deny: bool = False,
    line: str = NOBODY,
    enosys: Iterable[str] = (),
) -> list[Changed]:
    """Plan every profile as ``shim.profile.edit.plan`` does."""
    calls, enosys = list(calls), tuple(enosys)
    return [
        Changed(part, *plan(part.document, calls, states, when, override_deny, line, enosys))
        for part in contents.parts
    ]


def patch(contents: Contents, profiles: list[Changed]) -> Patched:
    """Make the edits that were planned, and read them back. ShimError: they cannot be made."""
    after = apply(contents, [each.edits for each in profiles])
    return Patched(after.text, profiles)
