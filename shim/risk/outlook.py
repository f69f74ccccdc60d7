"""What would become of a process if the kernel made it issue a call: dies, is denied, is safe.

A denied uretprobe ends in SIGSEGV, since the probed function then returns to what it was to give
back, or in SIGSYS (arch/x86/kernel/uprobes.c, uretprobe_trampoline_entry; measured in
docs/proof.md). A denied uprobe takes nothing from the stack that it does not put back
(uprobe_trampoline_entry): the process lives and the hit is lost, unless the filter kills. Any other
call is denied, as programs expect of calls.
"""

from functools import lru_cache
from typing import NamedTuple

from shim import abi
from shim.bpf.outcomes import LETTING, names
from shim.bpf.program import PREFIX_LENGTH, answering, encode
from shim.risk.live_filters import Process
from shim.risk.live_filters_child import Programs
from shim.risk.verdict import OutOfTimeError, lets_through, verdicts

DIES, DENIED, UNDECIDED, SAFE, UNREAD = "dies", "denied", "undecided", "safe", "unread"
GRAVITY = (DIES, UNDECIDED, DENIED, UNREAD, SAFE)

_KILLING = (abi.SECCOMP_RET_KILL_PROCESS, abi.SECCOMP_RET_KILL_THREAD, abi.SECCOMP_RET_TRAP)
STRICT = 1  # SECCOMP_MODE_STRICT: read, write, exit and sigreturn alone
_ENTRY = "uprobe"
_INTRICATE = "its filter is too intricate"
# Of the unassigned numbers one that nothing was made for: who lets it through lets all through.
_UNKNOWN_CALL = abi.TEST_SYSCALLS[-1]


class Call(NamedTuple):
    """A call that is asked about; ``injected``: a kernel makes processes issue it."""

    name: str
    nr: int
    injected: bool


class Outlook(NamedTuple):
    """What would become of a process, or of its worst thread.

    ``verdict`` is what its filters say, ``signal`` what it would die of, ``owner`` whose filter
    denies it (``runtime``, ``own``), ``why`` one line.
    """

    outcome: str
    verdict: str = ""
    signal: str = ""
    owner: str = ""
    why: str = ""


def outlook(process: Process, call: Call, *, contained: bool, mechanism: str = "") -> Outlook:
    """Return the outlook of the worst thread; ``contained``: the oldest filter is a runtime's.

    ``mechanism`` is the one by which we adjusted its container, where that is known.
    """
    if process.unread:
        return Outlook(UNREAD, why=process.unread)
    if process.mode == STRICT:
        return Outlook(DIES, "KILL", "SIGKILL", "own", "it is in strict mode (SECCOMP_MODE_STRICT)")
    if process.mode == 0:
        return Outlook(SAFE, why="unconfined: it has no filter")
    try:
        each = [_of_set(one.programs, call, mechanism, contained=contained) for one in process.sets]
    except OutOfTimeError:
        return Outlook(UNDECIDED, why=_INTRICATE)
    worst = min(each, key=lambda one: GRAVITY.index(one.outcome))
    if len({one.outcome for one in each}) > 1:
        counts = sum(
            filters.threads
            for filters, one in zip(process.sets, each, strict=True)
            if one.outcome == worst.outcome
        )
        worst = worst._replace(why=f"{worst.why}, in {counts} of {process.threads} threads")
    if worst.outcome == SAFE and process.partly:
        worst = Outlook(UNDECIDED, worst.verdict, why=process.partly)
    return worst


@lru_cache(maxsize=4096)
def _of_set(programs: Programs, call: Call, mechanism: str, *, contained: bool) -> Outlook:
    found = verdicts(programs, call.nr)
    told = names(found)
    if lets_through(programs, call.nr):
        return Outlook(SAFE, told, why=_why_safe(programs, call.nr, mechanism))
    owner, whose = _owner(programs, call.nr, contained=contained)
    actions = {each & abi.SECCOMP_RET_ACTION_FULL for each in found}
    if not found or abi.SECCOMP_RET_USER_NOTIF in actions:
        why = "a listener decides (user notification)" if found else _INTRICATE
        return Outlook(UNDECIDED, told, "", owner, why)
    sometimes = ", for certain arguments" * bool(actions & LETTING)
    why = f"{told} by {whose}{sometimes}"
    if actions & set(_KILLING):
        return Outlook(DIES, told, "SIGSYS", owner, why)
    if call.injected and call.name != _ENTRY:
        return Outlook(DIES, told, "SIGSEGV", owner, why)
    return Outlook(DENIED, told, "", owner, why)


def _owner(programs: Programs, nr: int, *, contained: bool) -> tuple[str, str]:
    """Tell whose filter it is that denies the call: the oldest one of a container's is first."""
    if not contained:
        return "own", "a filter of its own (or of its unit)"
    if not lets_through(programs[-1:], nr):
        return "runtime", "the filter of its container"
    return "own", "a filter that it loaded itself"


def _why_safe(programs: Programs, nr: int, mechanism: str) -> str:
    """Say why the call is let through: by us, by name, or because all is."""
    if not programs:
        return "unconfined: it has no filter"
    for program in programs:
        numbers, rest = _our_prefixes(program)
        if nr in numbers and not lets_through((rest,), nr):
            return f"allowed by us ({mechanism or 'filter-injection'})"
    if lets_through(programs, _UNKNOWN_CALL) and lets_through(programs, _UNKNOWN_CALL - 1):
        return "its filter lets through what it does not know"
    return f"allowed by us ({mechanism})" if mechanism else "allowed by name"


def _our_prefixes(program: bytes) -> tuple[set[int], bytes]:
    """Return the calls that are let through in front of a program as we do it, and the rest."""
    numbers: set[int] = set()
    size = 8 * PREFIX_LENGTH
    while len(program) > size:
        nr = int.from_bytes(program[28:32], "little")  # what the fourth instruction compares with
        if program[:size] != encode(answering(abi.AUDIT_ARCH_X86_64, nr, abi.SECCOMP_RET_ALLOW)):
            break
        numbers.add(nr)
        program = program[size:]
    return numbers, program
