"""A run: changes planned, made in groups, logged; and a run rolled back by another."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from shim import log as journal
from shim.discovery.find import Survey
from shim.discovery.root import Root
from shim.errors import ShimError
from shim.host.effect import NOTHING_KNOWN, Effect
from shim.profile.edit import Finding
from shim.profile.enosys_edit import UNNAMED
from shim.transaction import runs
from shim.transaction.commit import Result, commit
from shim.transaction.staged import Change
from shim.transaction.store import NOTHING, State, checksum, whose

Progress = Callable[[int], None]
LISTED = "rollback --list shows the runs, --id ID takes one of them"


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


def patching(survey: Survey, effects: Mapping[str, Effect] | None = None) -> Plan:
    """Plan to patch all files of a survey that may be changed."""
    plan = empty("patch", effects=effects)
    for file in survey.files:
        after = file.verdict.after
        if after is None:
            continue
        if file.kept:
            plan.refused.append((file.shown, file.kept))
            continue
        findings = [each for one in file.verdict.profiles for each in one.findings]
        add(plan, file.real, file.before, after, findings)
    return plan


def add(plan: Plan, real: str, before: str, after: bytes, findings: Iterable[Finding]) -> None:
    """Plan to make ``after`` the content of a file, which has the checksum ``before`` now."""
    if before not in plan.findings:
        plan.findings[before] = [each for each in findings if each.changed]
    name = checksum(after)
    plan.contents.setdefault(name, after)
    plan.changes.append(Change(real, before, name))


def rolling_back(
    state: State, run_id: str = "", paths: Sequence[str] = (), *, force: bool = False
) -> Plan:
    """Plan to roll back a run (without ``run_id`` our last one), or what it did to ``paths``.

    With ``paths`` alone it is, for each of them, the last run that has changed it. Another user's
    run is rolled back only where it is named. ``force`` also overwrites what somebody else has
    changed since. ShimError: there is nothing to roll back.
    """
    known = [
        run for run in runs.listed(state) if any(e.state != "old" for e in run.entries.values())
    ]
    if run_id:
        known = [run for run in known if run.id == runs.found(state, run_id).id]
    if not known:
        what = "it has changed no file" if run_id else "no run has changed a file"
        raise ShimError(what, subject=run_id or state.path, hint=LISTED)
    chosen: list[tuple[str, runs.Entry]] = []
    if paths:
        for path in paths:
            run, entry = _last(known, path)
            _refuse_another(run, path, run_id)
            chosen.append((run.id, entry))
    else:
        own = [run for run in known if run_id or run.by == whose()]
        run = (own or known)[-1]
        _refuse_another(run, state.path, run_id)
        chosen = [(run.id, each) for each in run.entries.values()]
    of = ",".join(dict.fromkeys(run for run, _ in chosen))
    plan = empty("rollback", of)
    for _, entry in chosen:
        if entry.state == "old":
            continue
        _roll_back(plan, state, entry, force)
    return plan


def roll_back(plan: Plan, state: State, done: Change, now: str, *, override: str) -> None:
    """Plan to undo a change to a file whose content has the checksum ``now``.

    What somebody has changed since is refused, with ``override`` as the user's way to have it
    overwritten; empty: the user has said so.
    """
    if now == done.before:
        return
    if now != done.after and override:
        reason = f"was changed since its run and is left alone ({override} overwrites it)"
        plan.refused.append((done.path, reason))
        return
    try:
        plan.contents.setdefault(done.before, state.read_backup(done.before))
    except ShimError as error:
        plan.refused.append((done.path, str(error)))
        return
    plan.changes.append(Change(done.path, now, done.before))


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


def _refuse_another(run: runs.Run, subject: str, run_id: str) -> None:
    """Refuse to roll back another user's run that was not named. ShimError: it is one."""
    if not run_id and run.by != whose():
        raise ShimError(
            f"the last run here, {run.id}, is that of {run.by or 'an unknown user'}",
            subject=subject,
            hint=f"--id {run.id} rolls it back all the same",
        )


def checksum_now(file: str, known: Iterable[str]) -> str:
    """Return the checksum of a file as it is; one that is not there may be known to be so.

    OSError, ShimError.
    """
    try:
        return checksum(Root().read(file))
    except FileNotFoundError:
        if NOTHING in known:
            return NOTHING
        raise


def text_now(change: Change) -> str | None:
    """Return the text that a change begins with; None: it has gone since the plan was made."""
    if change.before == NOTHING:
        return ""
    try:
        return Root().read(change.path).decode("utf-8", "replace")
    except (ShimError, OSError):
        return None


def _last(known: Iterable[runs.Run], path: str) -> tuple[runs.Run, runs.Entry]:
    for each in reversed(list(known)):
        for entry in each.entries.values():
            if entry.file == path and entry.state != "old":
                return each, entry
    raise ShimError("no run has changed it", subject=path, hint=LISTED)


def _roll_back(plan: Plan, state: State, entry: runs.Entry, force: bool) -> None:
    try:
        now = checksum_now(entry.file, (entry.before, entry.after))
    except (OSError, ShimError) as error:
        reason = error.message if isinstance(error, ShimError) else error.strerror
        reason = f"{reason}; its old content is {state.backup(entry.before)}"
        plan.refused.append((entry.file, reason))
        return
    done = Change(entry.file, entry.before, entry.after)
    roll_back(plan, state, done, now, override="" if force else "--force")


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
