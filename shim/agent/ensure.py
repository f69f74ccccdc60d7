"""Profiles brought into a wanted state: patched, or as they were before us; doing it twice is once.

What a request gives is JSON: ``{"changed", "run", "files": [{"file", "result", "reason", "before",
"after", "effect"}], "problems": [line], "notes": [line], "no_effect": [line], "diff"}``.
``result`` is ``patched`` or ``rolled back`` (with ``check``: would be), ``left alone``, ``skipped``
or ``failed``; ``before`` and ``after`` are the SHA-256 of the content, empty where it is not known;
files without anything to do are not listed. ``effect`` tells under which of the host's runtimes the
names of a patched file have one: all, some, none, unknown (``shim.host.effect``); empty where none
was added. ``no_effect`` says where they have none, and what helps. ``problems`` are what kept the
wanted state from being reached. With ``verify`` the host is looked at before the change and after
it: ``health``, as ``shim.health.watch`` has it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from shim import log
from shim.agent.expected import Expected, hold, undoing
from shim.catalog import kernel_injected
from shim.discovery.find import ProfileFile, Survey, survey
from shim.discovery.patching import patching
from shim.discovery.profile_state import PatchOptions
from shim.discovery.root import Root
from shim.errors import ShimError
from shim.host import cache
from shim.host.effect import effects_here, idle, next_steps, together
from shim.host.untrusted_files import secure
from shim.profile.diff import unified
from shim.profile.enosys_edit import checked
from shim.transaction import runs, store
from shim.transaction.commit import Change
from shim.transaction.plan import Plan, empty, run, text_now
from shim.transaction.rollback import rolling_back, undoing_patches
from shim.transaction.store import State


def patched(
    paths: Sequence[str],
    *,
    everything: bool,
    extra_paths: Sequence[str] = (),
    when: str,
    override_deny: bool,
    check: bool,
    diff: bool,
    verify: bool = False,
    expected: Expected | None = None,
    homes: bool = False,
    force: bool = False,
    enosys: Sequence[str] = (),
) -> dict[str, Any]:
    """Patch the profiles at ``paths`` (files, or all in a directory), or ``everything`` here.

    To everything belongs what lies at ``extra_paths``, and with ``homes`` what users have in their
    home directories. Files that belong to a package are patched with ``force`` only. ``enosys`` is
    what calls get ENOSYS, as ``patch --enosys`` has it.

    A profile that may not be changed is a problem where it was named. With ``expected`` only the
    files in it are changed, and only as it says; what keeps one of them from that is a problem.
    """
    known = {} if when == "always" else cache.states()
    calls = list(kernel_injected().values())
    options = PatchOptions(calls, known, when, override_deny, enosys=checked(enosys))
    options = options._replace(effects=effects_here(calls))
    answer = _answer([])
    paths = _real(answer, paths)
    extra = _real(answer, extra_paths)
    found = survey(
        Root(),
        None if everything else paths,
        options,
        extra=extra,
        homes=homes,
        packaged=force,
    )
    answer["notes"] += [f"{path}: {why}" for path, why in found.notes]
    if everything:
        # No problem of this run: anybody can put a file there that is none.
        invalid = (each for each in found.found if each.state == "invalid")
        answer["notes"] += [f"{each.file}: {each.reason}" for each in invalid]
    else:
        for path in paths:
            answer["problems"] += _unusable(path, found)
        found = found._replace(files=[each for each in found.files if _among(each, paths)])
    plan = patching(found, options.effects)
    _refused(answer, plan, named=not everything)
    answer["files"] += _left_alone(found, plan)
    if expected is not None:
        _hold(answer, plan, expected)
    with _watched(answer, plan, verify):
        _carry_out(answer, plan, "patched", check=check, diff=diff, opened=lambda: None)
    if any(each["effect"] in ("none", "some") for each in answer["files"]):
        answer["no_effect"] = [
            f"{each['file']}: {each['reason']}"
            for each in answer["files"]
            if each["effect"] in ("none", "some")
        ] + next_steps(calls, options.effects)
    return answer


def rolled_back(
    paths: Sequence[str],
    *,
    run_id: str,
    force: bool,
    check: bool,
    diff: bool,
    verify: bool = False,
    expected: Expected | None = None,
) -> dict[str, Any]:
    """Roll back what our runs did to ``paths``, or to all files; with ``run_id``, that run alone.

    With ``expected`` it is these files that become again what they were there; otherwise, without
    ``run_id``, a file becomes what it was before the first of our patches that follow each other
    without somebody else's change in between.
    """
    answer = _answer([])
    directory = store.directory()
    if not os.path.isdir(directory):
        with _watched(answer, empty("rollback"), verify):
            return answer
    with store.opened(directory, store.PATIENCE) as opened:
        _settle(answer, opened)
        named = _real(answer, paths)
        if expected is not None:
            plan = undoing(opened, expected, force=force)
        elif paths and not named:
            plan = empty("rollback")  # what was named cannot be reached, which does not mean all
        elif run_id:
            plan = rolling_back(opened, run_id, named, force=force)
        else:
            plan = undoing_patches(
                opened,
                lambda file: not named or any(_is_in(file, each) for each in named),
                force=force,
            )
        _refused(answer, plan, named=True)
        with _watched(answer, plan, verify):
            _carry_out(answer, plan, "rolled back", check=check, diff=diff, opened=lambda: opened)
    return answer


def _answer(notes: list[str]) -> dict[str, Any]:
    lists: dict[str, Any] = {"files": [], "problems": [], "notes": notes, "no_effect": []}
    return {"changed": False, "run": "", "diff": "", **lists}


def _real(answer: dict[str, Any], paths: Sequence[str]) -> list[str]:
    """Return the true paths of those that were named; a link others can change is a problem."""
    found = []
    for path in paths:
        try:
            found.append(Root().real(os.path.abspath(path)))
        except ShimError as error:
            answer["problems"].append(str(error))
    return found


def _unusable(path: str, found: Survey) -> Iterator[str]:
    """Say why a named path has no profile that could be patched."""
    if not os.path.lexists(path):
        yield f"{path}: there is no such file"
        return
    true = {each.shown: each.real for each in found.files}
    inside = [each for each in found.found if _is_in(true.get(each.file, each.file), path)]
    yield from (f"{each.file}: {each.reason}" for each in inside if each.state == "invalid")
    if not inside and not os.path.isdir(path):
        yield f"{path}: holds no seccomp profile"


def _left_alone(found: Survey, plan: Plan) -> Iterator[dict[str, str]]:
    """Tell of profiles that deny a call and are not changed, and why."""
    through = {each.path for each in plan.changes} | {shown for shown, _ in plan.refused}
    shown = {each.shown for each in found.files if {each.real, each.shown}.isdisjoint(through)}
    for each in found.found:
        why = next((one.reason for one in each.findings if one.verdict != "allows"), "")
        if each.file in shown and why and each.state != "allows":
            name = f"{each.file} ({each.profile})" if each.profile else each.file
            yield _file_result(name, "left alone", why)


def _hold(answer: dict[str, Any], plan: Plan, expected: Expected) -> None:
    """Leave only what was expected; tell of the rest as skipped."""
    for each in hold(plan, expected):
        reason = f"not as planned: {each.reason}"
        answer["files"].append(_file_result(each.file, "skipped", reason, each.before, each.after))
        if each.problem:
            answer["problems"].append(f"{each.file}: {reason}")


def _among(file: ProfileFile, paths: Sequence[str]) -> bool:
    return any(_is_in(file.real, path) for path in paths)


def _is_in(file: str, path: str) -> bool:
    """Tell whether a file is ``path`` or in that directory, both being true paths."""
    return os.path.commonpath([file, path]) == path


def _refused(answer: dict[str, Any], plan: Plan, *, named: bool) -> None:
    for file, reason in plan.refused:
        answer["files"].append(_file_result(file, "left alone", reason))
        if named:
            answer["problems"].append(f"{file}: {reason}")


@contextmanager
def _watched(answer: dict[str, Any], plan: Plan, verify: bool) -> Iterator[None]:
    """Look at the host's health before a plan is carried out and after, if that was asked for."""
    if not verify:
        yield
        return
    from shim.health.watch import Checkup  # tasks that do not ask must not pay for it

    watch = Checkup(plan)
    yield
    watch.tell(answer)


def _carry_out(
    answer: dict[str, Any],
    plan: Plan,
    done: str,
    *,
    check: bool,
    diff: bool,
    opened: Callable[[], State | None],
) -> None:
    if diff:
        answer["diff"] = "".join(_diffs(plan))
    answer["changed"] = bool(plan.changes)
    if check or not plan.changes:
        what = f"would be {done}"
        answer["files"] += [_changed(plan, each, what) for each in plan.changes]
        return
    if (have := opened()) is not None:
        _make(answer, plan, have, done)
        return
    with store.opened(store.directory(), store.PATIENCE) as have:
        _settle(answer, have)
        _make(answer, plan, have, done)


def _make(answer: dict[str, Any], plan: Plan, opened: State, done: str) -> None:
    _make_log_folder()
    outcome = run(plan, opened, lambda _: None)
    answer["run"] = outcome.run
    answer["changed"] = outcome.count("done") > 0
    for each in outcome.results:
        what = done if each.what == "done" else each.what
        if each.what == "done":
            answer["files"].append(_changed(plan, each.change, what))
        else:
            path, before, after = each.change
            answer["files"].append(_file_result(path, what, each.reason, before, after))
            answer["problems"].append(f"{path}: {each.reason}")


def _changed(plan: Plan, change: Change, result: str) -> dict[str, str]:
    """Tell of a file that is changed, or would be; what is patched without effect says so."""
    names = plan.named(change)
    told = _file_result(
        change.path, result, "; ".join(idle(names, plan.effects)), change.before, change.after
    )
    return {**told, "effect": together(names, plan.effects)} if names else told


def _file_result(
    file: str, result: str, reason: str, before: str = "", after: str = ""
) -> dict[str, str]:
    about = {"file": file, "result": result, "reason": reason}
    return {**about, "before": before, "after": after, "effect": ""}


def _diffs(plan: Plan) -> Iterator[str]:
    for change in plan.changes:
        before = text_now(change)
        if before is not None:
            after = plan.contents[change.after].decode("utf-8", "replace")
            yield unified(before, after, change.path)


def _make_log_folder() -> None:
    """Make the directory of the log where install.sh has not been: a log is what a change needs."""
    directory = os.path.dirname(log.path())
    if not os.path.isdir(directory):
        secure(directory, 0o750)


def _settle(answer: dict[str, Any], opened: State) -> None:
    """Find out what killed runs left half done."""
    for each in runs.recover(opened):
        found = [entry.state for entry in each.entries.values()]
        counts = (f"{found.count(what)} {what}" for what in ("new", "old", "changed"))
        answer["notes"].append(f"run {each.id} was killed, of its files are {', '.join(counts)}")
