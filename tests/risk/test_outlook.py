"""Who would die of what, told of filters alone."""

import pytest

from shim import abi
from shim.bpf.program import RET_K, allow, answering, encode
from shim.risk.live_filters import FilterSet, Process
from shim.risk.outlook import Call, Outlook, outlook
from shim.risk.scan import calls
from support.filters import denying

X86 = abi.AUDIT_ARCH_X86_64
URETPROBE, UPROBE = Call("uretprobe", 335, True), Call("uprobe", 336, True)
ORDINARY = Call("mseal", 462, False)
RETURNS = {
    "errno": abi.SECCOMP_RET_ERRNO | 38,
    "trace": abi.SECCOMP_RET_TRACE,
    "trap": abi.SECCOMP_RET_TRAP,
    "kill": abi.SECCOMP_RET_KILL_THREAD,
    "process": abi.SECCOMP_RET_KILL_PROCESS,
    "notify": abi.SECCOMP_RET_USER_NOTIF,
    "log": abi.SECCOMP_RET_LOG,
    "allow": abi.SECCOMP_RET_ALLOW,
}
# By default and for the call alone.
EVERYTHING = {name: encode([(RET_K, 0, 0, value)]) for name, value in RETURNS.items()}


def process(*sets: tuple[bytes, ...], **changes: object) -> Process:
    """Return a process whose threads have these sets."""
    found = tuple(FilterSet(programs, 1, 1) for programs in sets)
    made = Process(1, "1", "x", 0, 1, 2, len(sets), "", found)
    return made._replace(**changes)  # type: ignore[arg-type]


def look(*programs: bytes, call: Call = URETPROBE, contained: bool = True) -> Outlook:
    """Return the outlook of a process with one thread."""
    return outlook(process(programs), call, contained=contained)


@pytest.mark.parametrize(
    ("kind", "outcome", "signal"),
    [
        ("errno", "dies", "SIGSEGV"),
        ("trace", "dies", "SIGSEGV"),
        ("trap", "dies", "SIGSYS"),
        ("kill", "dies", "SIGSYS"),
        ("process", "dies", "SIGSYS"),
        ("notify", "undecided", ""),
        ("log", "safe", ""),
        ("allow", "safe", ""),
    ],
)
def test_what_a_verdict_means(kind: str, outcome: str, signal: str) -> None:
    """An error lets the trampoline return to nowhere, a killing action kills."""
    found = look(EVERYTHING[kind])
    assert (found.outcome, found.signal) == (outcome, signal)


def test_a_denied_uprobe_loses_its_hit_alone() -> None:
    """Its trampoline puts back what it took: only a filter that kills is deadly."""
    assert look(EVERYTHING["errno"], call=UPROBE).outcome == "denied"
    assert look(EVERYTHING["kill"], call=UPROBE).outcome == "dies"


def test_an_ordinary_call_is_denied() -> None:
    """Programs expect errors of what they call themselves."""
    assert look(EVERYTHING["errno"], call=ORDINARY).outcome == "denied"


def test_whose_filter_it_is() -> None:
    """In a container the oldest is the runtime's; what came later the program's own."""
    denies, allows = denying(0), EVERYTHING["allow"]
    assert look(allows, denies).owner == "runtime"
    assert look(denies, allows).owner == "own"
    assert look(denies, denies).owner == "runtime"
    assert look(denies, contained=False).owner == "own"


def test_why_somebody_is_safe() -> None:
    """By us, by name, since all is let through, or since there is no filter."""
    ours = allow(denying(0), X86, 335)
    assert look(ours).why == "allowed by us (filter-injection)"
    twice = allow(allow(denying(0), X86, 336), X86, 335)
    assert look(twice, call=UPROBE).why == look(twice).why == look(ours).why
    known = outlook(process((denying(335),)), URETPROBE, contained=True, mechanism="name")
    assert known.why == "allowed by us (name)"
    assert look(denying(335)).why == "allowed by name"
    assert look(EVERYTHING["allow"]).why == "its filter lets through what it does not know"
    # One that allows it by itself in the same words is not ours.
    assert "by us" not in look(allow(EVERYTHING["allow"], X86, 335)).why
    assert outlook(process(mode=0), URETPROBE, contained=True).why.startswith("unconfined")


def test_the_worst_thread_counts() -> None:
    """Threads differ: one that would die makes its process die, and how many is told."""
    found = outlook(process((denying(0),), ()), URETPROBE, contained=True)
    assert found.outcome == "dies"
    assert found.why.endswith("in 1 of 2 threads")


def test_a_condition_on_arguments_may_be_met() -> None:
    """The trampoline leaves in the registers whatever the program had there."""
    program = encode(
        [
            (0x20, 0, 0, 16),  # the first argument's low half
            (0x15, 0, 1, 7),
            (RET_K, 0, 0, abi.SECCOMP_RET_ALLOW),
            *answering(X86, 335, RETURNS["errno"]),
            (RET_K, 0, 0, abi.SECCOMP_RET_ALLOW),
        ]
    )
    found = look(program)
    assert found.outcome == "dies"
    assert found.why.endswith("for certain arguments")


def test_nothing_is_safe_that_was_not_read() -> None:
    """Who could not be read, or not whole, is not called safe."""
    assert outlook(process(unread="traced"), URETPROBE, contained=True).outcome == "unread"
    some = outlook(process((EVERYTHING["allow"],), partly="some"), URETPROBE, contained=True)
    assert (some.outcome, some.why) == ("undecided", "some")


def test_strict_mode_kills() -> None:
    """SECCOMP_MODE_STRICT has no filter and lets four calls through."""
    assert outlook(process(mode=1), URETPROBE, contained=False).signal == "SIGKILL"


def test_the_calls_that_are_asked_about() -> None:
    """Those that kernels inject, unless others are named."""
    assert calls() == [URETPROBE, UPROBE]
    assert calls(["mseal", "test-syscall-400"]) == [ORDINARY, Call("test-syscall-400", 400, True)]
