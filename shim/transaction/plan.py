"""A run: changes planned, made in groups, logged."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from shim import log as journal
from shim.errors import ShimError
from shim.host.effect import NOTHING_KNOWN, Effect
from shim.host.untrusted_files import reach
from shim.profile.document import MAX_BYTES
from shim.profile.edit import Finding
from shim.profile.enosys_edit import UNNAMED
from shim.transaction import runs
from shim.transaction.commit import Result, commit
from shim.transaction.staged import Change
from shim.transaction.store import NOTHING, State, checksum

Progress = Callable[[int], None]


class Plan(NamedTuple):
    """What a run is to do: ``kind`` is patch or rollback, ``of`` the run that is rolled back.

    ``contents`` are by checksum; ``findings``, by the checksum before, are for the audit log.
    ``refused`` are files that stay as they are, and why. ``effects`` are what the names that are
    added do under the runtimes of this host, as far as that is known.
    """

    kind: str
    of: str
    changes: list[Change]
    contents: dict[str, bytes]
    findings: dict[str, list[Finding]]
    refused: list[tuple[str, str]]
    effects: Mapping[str, Effect] = {}

    def named(self, change: Change) -> list[str]:
        """Return the calls that a change allows by name."""
        found = self.findings.get(change.before, ())
        return [each.syscall for each in found if each.verdict != UNNAMED]


class Outcome(NamedTuple):
    """What came of a run: its id, and each file's result."""

    run: str
    results: list[Result]

    def count(self, what: str) -> int:
        """Count the results that are ``what``: done, skipped or failed."""
        return sum(each.what == what for each in self.results)


def empty(kind: str, of: str = "", effects: Mapping[str, Effect] | None = None) -> Plan:
    """Return a plan without anything to do so far."""
    return Plan(kind, of, [], {}, {}, [], effects or {})


def add(plan: Plan, real: str, before: str, after: bytes, findings: Iterable[Finding]) -> None:
    """Plan to make ``after`` the content of a file, which has the checksum ``before`` now."""
    if before not in plan.findings:
        plan.findings[before] = [each for each in findings if each.changed]
    name = checksum(after)
    plan.contents.setdefault(name, after)
    plan.changes.append(Change(real, before, name))


def run(plan: Plan, state: State, progress: Progress, log: str | None = None) -> Outcome:
    """Make a plan's changes. ShimError or OSError: the run could not go on; the journal tells.

    Each change is a line of the audit log (at ``log``, if not the usual place) before it is made.
    """
    where = log or journal.path()
    book = runs.Journal(state, plan.kind, plan.of, len(plan.changes))

    def logged(changes: Sequence[Change]) -> None:
        lines = [line for each in changes for line in _lines(plan, each, book.id)]
        try:
            journal.append(b"".join(lines), where)
        except OSError as error:
            raise ShimError(
                f"cannot log: {error.strerror}",
                subject=where,
                hint="what is not logged is not done; make the directory or free the disk",
            ) from None

    def failed(change: Change, reason: str) -> None:
        fields: dict[str, object] = {**_fields(change, book.id), "reason": reason}
        journal.append(journal.render("error", f"{plan.kind}-failed", fields), where)

    how = "stopped"
    try:
        results = commit(plan.changes, plan.contents, state, book, logged, failed, progress)
        how = "done"
        return Outcome(book.id, results)
    finally:
        book.end(how)


def text_now(change: Change) -> str | None:
    """Return the text that a change begins with; None: it has gone since the plan was made."""
    if change.before == NOTHING:
        return ""
    try:
        return content_now(change.path).decode("utf-8", "replace")
    except (ShimError, OSError):
        return None


def content_now(path: str) -> bytes:
    """Read a file up to one byte more than a profile may have. OSError, ShimError."""
    with reach(path) as place:
        return place.read(MAX_BYTES)


def _lines(plan: Plan, change: Change, run_id: str) -> list[bytes]:
    fields = _fields(change, run_id)
    if plan.kind != "patch":
        return [journal.render("info", plan.kind, {**fields, "of": plan.of})]
    lines = []
    refused = [each for each in plan.findings[change.before] if each.verdict == UNNAMED]
    if refused:
        names = ",".join(dict.fromkeys(each.syscall for each in refused))
        more = {"before": UNNAMED, "after": "ENOSYS", "reason": refused[0].reason}
        lines.append(journal.render("info", plan.kind, {**fields, "syscall": names, **more}))
    for finding in plan.findings[change.before]:
        if finding.verdict == UNNAMED:
            continue
        effect = plan.effects.get(finding.syscall, NOTHING_KNOWN)
        after = "no effect" if effect.word == "none" else "allowed"
        reason = "; ".join(filter(None, (finding.reason, effect.text)))
        more = {"before": finding.verdict, "after": after, "reason": reason}
        line: dict[str, object] = {**fields, "syscall": finding.syscall, **more}
        lines.append(journal.render("info", plan.kind, line))
    return lines


def _fields(change: Change, run_id: str) -> dict[str, object]:
    return {
        "mechanism": "profile",
        "profile": change.path,
        "run": run_id,
        "sha256_before": change.before,
        "sha256_after": change.after,
    }
