"""The runs over many hosts: asked, planned for, changed, rolled back; batch by batch.

A host's line of the journal has ``host``, ``result`` and ``reason``; results are ``asked``;
``would change`` and ``nothing to do``; ``changed``, ``unchanged`` and ``regressed`` (changed, and
containers do worse than before); ``rolled back``; and for each kind of run ``failed`` and
``unreachable``. What the host's module said (``facts``, ``files``, ``diff``, ...) is in it as well.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from shim.errors import ShimError
from shim.fleet import answers, known
from shim.fleet.ansible import AnsibleOptions, HostAnswer, TaskListener, ask
from shim.fleet.batches import batches, stop
from shim.fleet.store import FleetRun, RunJournal, Store, wants
from shim.transaction.store import whose

# The role's variable, by which an inventory names what lies elsewhere on a host.
_EXTRA = "{{ (seccomp_shim_extra_paths | default([])) + given.extra_paths }}"


class RolloutListener(NamedTuple):
    """Whom to tell how a run goes: its start, a batch, a host that begins, a host's line."""

    run: Callable[[str, int], None]
    batch: Callable[[int, int, int], None]
    begun: Callable[[str], None]
    line: Callable[[Mapping[str, Any]], None]
    cancelled: Callable[[], bool]


class Rules(NamedTuple):
    """How a roll-out goes on: in what portions, what stops it, and whether that is rolled back."""

    canary: int = 0
    serial: Sequence[str] = ("100%",)
    max_fail: float = 100
    auto_rollback: bool = False
    verify: bool = True


class RolloutOutcome(NamedTuple):
    """What came of a run: its id, every host's line, why it was stopped, the run that undid it.

    ``batch`` are the hosts after which it was stopped.
    """

    run: str
    lines: dict[str, dict[str, Any]]
    stopped: str = ""
    batch: Sequence[str] = ()
    rolled_back: "RolloutOutcome | None" = None


class Interrupted(Exception):  # noqa: N818 - somebody's wish, not an error
    """The run was ended from outside; its id."""


def ask_facts(
    store: Store,
    way: AnsibleOptions,
    names: Sequence[str],
    options: Mapping[str, Any],
    tell: RolloutListener,
) -> RolloutOutcome:
    """Ask hosts for their facts.

    Profiles are looked for where the inventory says, too, and as ``options`` say: at
    ``extra_paths``, and in ``homes`` of users or not.
    """
    return facts_again(store, way, store.begin("facts", [names], **options), tell)


def facts_again(
    _: Store, way: AnsibleOptions, book: RunJournal, tell: RolloutListener
) -> RolloutOutcome:
    """Ask those hosts of a run that have not answered."""
    given = {"extra_paths": book.run.head["extra_paths"]}
    asked = {"extra_paths": _EXTRA, "homes": book.run.head["homes"]}
    task = _Task("seccomp_shim_facts", asked, dict.fromkeys(book.run.hosts, given))
    return _drive(way, book, task, tell, answers.of_facts)


def plan(
    store: Store,
    way: AnsibleOptions,
    names: Sequence[str],
    options: Mapping[str, Any],
    tell: RolloutListener,
) -> RolloutOutcome:
    """Have hosts tell what they would change, where the facts do not tell that it is nothing.

    ``options`` are ``when``, ``paths``, ``homes``, ``override_deny``, ``enosys`` and ``force``.
    ShimError: no facts of any host.
    """
    facts = known.facts(store.runs("facts"))
    asked = [each for each in names if each in facts.answers]
    if not asked:
        raise ShimError("no facts of these hosts", hint="fleet facts asks them")
    book = store.begin("plan", [asked], **options)
    nothing = {"result": "nothing to do"}
    for each in asked:
        reason = known.nothing_to_do(facts.answers[each]["facts"], options)
        if reason:
            tell.line(book.settle(_planned(each, facts, options, nothing, reason)))
    return _plan(way, book, facts, tell)


def plan_again(
    store: Store, way: AnsibleOptions, book: RunJournal, tell: RolloutListener
) -> RolloutOutcome:
    """Ask those hosts that have not told their plan."""
    return _plan(way, book, known.facts(store.runs("facts")), tell)


def _plan(
    way: AnsibleOptions, book: RunJournal, facts: known.Answers, tell: RolloutListener
) -> RolloutOutcome:
    head = book.run.head
    # Without paths it is all that the facts have told of: also what lies where they had to look.
    given = {each: _where(facts, each, head) for each in book.run.hosts}
    task = _Task("seccomp_shim_profile", _patched(head), given, check=True)

    def read(answer: HostAnswer) -> dict[str, Any]:
        line = answers.of_profiles(answer, "would change", "nothing to do")
        return _planned(answer.host, facts, head, line, line["reason"])

    return _drive(way, book, task, tell, read)


def apply(
    store: Store,
    way: AnsibleOptions,
    names: Sequence[str],
    made: FleetRun,
    rules: Rules,
    tell: RolloutListener,
) -> RolloutOutcome:
    """Carry a plan out, on those of its hosts that are in ``names``.

    ShimError: the plan is older than facts that its hosts have told since, or has nothing to do.
    """
    hosts = planned(made, names)
    if not hosts:
        raise ShimError("nothing to do on these hosts", subject=f"plan {made.id}")
    parts = divided(store, made, hosts, rules)
    book = store.begin("apply", parts, of=made.id, rules=rules._asdict())
    return _apply(store, way, book, made, tell)


def divided(store: Store, made: FleetRun, hosts: Sequence[str], rules: Rules) -> list[list[str]]:
    """Return the batches of a roll-out. ShimError: the plan is older than its hosts' facts."""
    answers = known.facts(store.runs("facts")).answers
    known.refuse_stale(made, hosts, answers)
    kinds = {each: known.kind(answers[each]["facts"], made.lines[each]) for each in hosts}
    return batches(hosts, kinds, canary=rules.canary, sizes=rules.serial)


def apply_again(
    store: Store, way: AnsibleOptions, book: RunJournal, tell: RolloutListener
) -> RolloutOutcome:
    """Go on with those hosts that have not been changed."""
    return _apply(store, way, book, store.found(book.run.head["of"], "plan"), tell)


def _apply(
    store: Store, way: AnsibleOptions, book: RunJournal, made: FleetRun, tell: RolloutListener
) -> RolloutOutcome:
    rules = Rules(**book.run.head["rules"])
    given = {each: _expected(made, each) for each in book.run.hosts}
    arguments = {**_patched(made.head), "expected": "{{ given.expected }}", "verify": rules.verify}
    task = _Task("seccomp_shim_profile", arguments, given)
    outcome = _drive(
        way, book, task, tell, lambda each: answers.of_profiles(each, "changed", "unchanged")
    )
    worse = any(outcome.lines[each]["result"] == "regressed" for each in outcome.batch)
    if worse and rules.auto_rollback:
        applied = store.found(book.id, "apply")
        # All of it at once, and whatever else fails.
        undoing = Rules(verify=rules.verify)
        back = roll_back(store, way, outcome.batch, applied, undoing, tell)
        return outcome._replace(rolled_back=back)
    return outcome


def roll_back(
    store: Store,
    way: AnsibleOptions,
    names: Sequence[str],
    applied: FleetRun,
    rules: Rules,
    tell: RolloutListener,
) -> RolloutOutcome:
    """Return the files that an apply has changed on hosts their old content.

    Hosts that never answered are asked, too: what became of their files is not known here.
    ShimError: the run has changed nothing that has not been rolled back.
    """
    hosts = _left(store, applied, names)
    if not hosts:
        others = [each.id for each in store.runs("apply") if _left(store, each, names)]
        raise ShimError(
            "has changed nothing that is left on these hosts",
            subject=applied.id,
            hint=f"--id takes one of: {', '.join(others)}" if others else "nor has any other run",
        )
    parts = batches(hosts, {}, sizes=rules.serial)
    book = store.begin("rollback", parts, of=applied.id, rules=rules._asdict())
    return roll_back_again(store, way, book, tell)


def last_change(store: Store, names: Sequence[str]) -> FleetRun:
    """Return our last apply of which something is left on hosts. ShimError: there is none."""
    runs = [each for each in store.runs("apply") if _left(store, each, names)]
    own = [each for each in runs if each.by == whose()]
    if own:
        return own[-1]
    if runs:
        raise ShimError(
            f"the last apply on these hosts is that of {runs[-1].by or 'an unknown user'}",
            subject=runs[-1].id,
            hint=f"--id {runs[-1].id} rolls it back all the same",
        )
    store.found("", "apply")
    raise ShimError(
        "every apply on these hosts has changed nothing, or has been rolled back",
        hint="fleet report lists the runs",
    )


def _left(store: Store, applied: FleetRun, names: Sequence[str]) -> list[str]:
    """Return the hosts on which there may be changes of a run that have not been rolled back."""
    back = known.rolled_back(store, applied)
    return [
        each
        for each in applied.hosts
        if each in names and each in applied.begun and each not in back
        if applied.lines.get(each, {}).get("result") != "unchanged"
    ]


def roll_back_again(
    store: Store, way: AnsibleOptions, book: RunJournal, tell: RolloutListener
) -> RolloutOutcome:
    """Go on with those hosts that have not been rolled back."""
    rules = Rules(**book.run.head["rules"])
    made = store.found(store.found(book.run.head["of"], "apply").head["of"], "plan")
    given = {each: _expected(made, each) for each in book.run.hosts}
    arguments = {
        "state": "rolled_back",
        "all": True,
        "expected": "{{ given.expected }}",
        "verify": rules.verify,
    }
    task = _Task("seccomp_shim_profile", arguments, given)
    read = partial(answers.of_profiles, changed="rolled back", unchanged="unchanged")
    return _drive(way, book, task, tell, read)


AGAIN: Mapping[
    str, Callable[[Store, AnsibleOptions, RunJournal, RolloutListener], RolloutOutcome]
] = {
    "facts": facts_again,
    "plan": plan_again,
    "apply": apply_again,
    "rollback": roll_back_again,
}


def planned(made: FleetRun, names: Sequence[str]) -> list[str]:
    """Return the hosts among ``names`` that a plan would change."""
    lines = made.lines
    return [each for each in names if lines.get(each, {}).get("result") == "would change"]


class _Task(NamedTuple):
    """A module, its arguments, and what each host is given of its own."""

    module: str
    arguments: Mapping[str, Any]
    each: Mapping[str, Any] | None = None
    check: bool = False


def _drive(
    way: AnsibleOptions,
    book: RunJournal,
    task: _Task,
    tell: RolloutListener,
    read: Callable[[HostAnswer], dict[str, Any]],
) -> RolloutOutcome:
    """Return a task to the hosts of a run that want it, batch by batch, until it must stop."""
    run = book.run
    rules = Rules(**run.head.get("rules", {}))
    tell.run(book.id, sum(wants(book.lines, each) for each in run.hosts))
    try:
        for number, part in enumerate(run.batches, 1):
            wanting = [each for each in part if wants(book.lines, each)]
            if not wanting:
                continue
            if tell.cancelled():
                raise Interrupted(book.id)
            if len(run.batches) > 1:
                tell.batch(number, len(run.batches), len(wanting))
            _ask(way, book, task, tell, read, wanting)
            # After the last batch there is nothing left to be stopped by failures.
            max_fail = rules.max_fail if number < len(run.batches) else 100
            why = stop([book.lines[each] for each in wanting], max_fail)
            if why:
                book.end("stopped", why)
                return RolloutOutcome(book.id, book.lines, why, wanting)
    except Interrupted:
        book.end("interrupted")
        raise
    except ShimError as error:
        book.end("stopped", str(error))
        raise
    book.end("done")
    return RolloutOutcome(book.id, book.lines)


def _ask(
    way: AnsibleOptions,
    book: RunJournal,
    task: _Task,
    tell: RolloutListener,
    read: Callable[[HostAnswer], dict[str, Any]],
    names: Sequence[str],
) -> None:
    """Ask hosts and write down what they answer; what Ansible tells nothing of has failed."""
    silent = dict.fromkeys(names)

    def begun(host: str) -> None:
        book.begun(host)
        tell.begun(host)

    def answered(answer: HostAnswer) -> None:
        silent.pop(answer.host, None)
        tell.line(book.settle(read(answer)))

    watch = TaskListener(begun, answered, tell.cancelled)
    ask(way, names, task.module, task.arguments, watch, check=task.check, each=task.each)
    if silent and tell.cancelled():
        raise Interrupted(book.id)
    for host in list(silent):
        answered(HostAnswer(host, "failed", "Ansible has ended without a word of it", {}))


def _where(facts: known.Answers, host: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Tell where a host is to look: as the plan says, else as it had to for its facts."""
    told = facts.answers[host]["facts"]
    return {
        "path": options["paths"],
        "extra_paths": [] if options["paths"] else told["extra_paths"],
        "homes": options["homes"] or told["homes"],
    }


def _planned(
    host: str,
    facts: known.Answers,
    options: Mapping[str, Any],
    line: Mapping[str, Any],
    reason: str,
) -> dict[str, Any]:
    """Note which facts a host's plan was made from, and where it had to look."""
    told = {"host": host, **line, "reason": reason, "facts_of": facts.answers[host]["time"]}
    return {**told, "where": _where(facts, host, options)}


def _patched(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a plan and its apply have in common."""
    return {
        "all": not options["paths"],
        "path": "{{ given.path }}",
        "extra_paths": "{{ given.extra_paths }}",
        "homes": "{{ given.homes }}",
        "when": options["when"],
        "override_deny": options["override_deny"],
        "enosys": options.get("enosys", []),
        "force": options["force"],
    }


def _expected(made: FleetRun, host: str) -> dict[str, Any]:
    """Return what a host is to change, as its plan has it, and where it is to look."""
    line = made.lines[host]
    files = line.get("files", [])
    expected = {
        each["file"]: [each["before"], each["after"]]
        for each in files
        if each["result"] == "would be patched"
    }
    return {**line["where"], "expected": expected}
