"""What is undone, planned: for engines' files, profiles, runs and hosts the same decision."""

from collections.abc import Callable, Iterable, Sequence

from shim.errors import ShimError
from shim.transaction import runs
from shim.transaction.plan import Plan, content_now, empty
from shim.transaction.staged import Change
from shim.transaction.store import NOTHING, State, checksum, whose

LISTED = "rollback --list shows the runs, --id ID takes one of them"


def undone(edits: Sequence[tuple[str, str]], now: str) -> str | None:
    """Return the checksum of what a file becomes whose content has the checksum ``now``.

    ``edits`` are ours, the checksums before and after of each, the oldest first: of those that
    follow each other all are undone; what was there before them stays. None: it is not as any of
    them left it, for somebody else has changed it since.
    """
    if not any(now in edit for edit in edits):
        return None
    for before, after in reversed(edits):
        if after == now:
            now = before
    return now


def add_undo(
    plan: Plan,
    state: State,
    path: str,
    edits: Sequence[tuple[str, str]],
    now: str,
    *,
    override: str,
) -> None:
    """Plan that a file with the checksum ``now`` becomes what it was before ``edits``; ``undone``.

    What somebody has changed since is refused, with ``override`` as the user's way to have it
    overwritten; empty: the user has said so.
    """
    back = undone(edits, now)
    if back is None and override:
        reason = f"was changed since its run and is left alone ({override} overwrites it)"
        plan.refused.append((path, reason))
        return
    if back is None:
        back = undone(edits, edits[-1][1]) or now
    if back == now:
        return
    try:
        plan.contents.setdefault(back, state.read_backup(back))
    except ShimError as error:
        plan.refused.append((path, str(error)))
        return
    plan.changes.append(Change(path, now, back))


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
    plan = empty("rollback", ",".join(dict.fromkeys(run for run, _ in chosen)))
    for _, entry in chosen:
        if entry.state != "old":
            _undo(plan, state, [entry], "" if force else "--force")
    return plan


def undoing_patches(state: State, chosen: Callable[[str], bool], *, force: bool) -> Plan:
    """Plan to make the files that are ``chosen`` what they were before our patches.

    That is what a file was before the first of those that follow each other without somebody else's
    change in between.
    """
    patches: dict[str, list[runs.Entry]] = {}
    of: list[str] = []
    for run in runs.listed(state):
        for entry in run.entries.values() if run.kind == "patch" else ():
            if entry.state != "old" and chosen(entry.file):
                patches.setdefault(entry.file, []).append(entry)
                of.append(run.id)
    plan = empty("rollback", ",".join(dict.fromkeys(of)))
    for entries in patches.values():
        _undo(plan, state, entries, "" if force else "force")
    return plan


def checksum_now(file: str, known: Iterable[str]) -> str:
    """Return the checksum of a file as it is; one that is not there may be known to be so.

    OSError, ShimError.
    """
    try:
        return checksum(content_now(file))
    except FileNotFoundError:
        if NOTHING in known:
            return NOTHING
        raise


def _undo(plan: Plan, state: State, entries: Sequence[runs.Entry], override: str) -> None:
    """Plan to undo what runs did to one file; where it cannot be read, that is refused."""
    file = entries[-1].file
    edits = [(each.before, each.after) for each in entries]
    try:
        now = checksum_now(file, [each for edit in edits for each in edit])
    except (OSError, ShimError) as error:
        reason = error.message if isinstance(error, ShimError) else error.strerror
        reason = f"{reason}; its old content is {state.backup(edits[0][0])}"
        plan.refused.append((file, reason))
        return
    add_undo(plan, state, file, edits, now, override=override)


def _last(known: Iterable[runs.Run], path: str) -> tuple[runs.Run, runs.Entry]:
    for each in reversed(list(known)):
        for entry in each.entries.values():
            if entry.file == path and entry.state != "old":
                return each, entry
    raise ShimError("no run has changed it", subject=path, hint=LISTED)


def _refuse_another(run: runs.Run, subject: str, run_id: str) -> None:
    """Refuse to roll back another user's run that was not named. ShimError: it is one."""
    if not run_id and run.by != whose():
        raise ShimError(
            f"the last run here, {run.id}, is that of {run.by or 'an unknown user'}",
            subject=subject,
            hint=f"--id {run.id} rolls it back all the same",
        )
