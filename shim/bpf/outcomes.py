"""What a filter can answer one system call, whatever its arguments and instruction pointer are.

The container start path imports this module. Number and architecture are known, all else is not:
where a branch looks at what is not known, both of its sides are followed. One verdict on all of
them is exact, and every filter made from a profile without conditions gives one. Several may be too
many (a path that no arguments lead down), so then the whole function is made, as for a proof.
"""

from shim import abi
from shim.bpf.emulator import Undecided, follow
from shim.bpf.program import BpfError, action_name, canonical, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from shim.bpf.program import Insns

LETTING = frozenset((abi.SECCOMP_RET_ALLOW, abi.SECCOMP_RET_LOG))
# Instructions followed, and steps of the proof, before it gives up: 50 ms, and 150 at most.
# Docker's default profile takes some 100 instructions for a call, and 10,000 steps of a proof.
_INSTRUCTIONS = 50_000
_WORK = 50_000
_UNKNOWN: "tuple[int | None, ...]" = (None,) * (abi.SECCOMP_DATA_SIZE // 4 - 2)


def outcomes(insns: "Insns", nr: int, arch: int = abi.AUDIT_ARCH_X86_64) -> "frozenset[int]":
    """Return every canonical verdict that the program has for some arguments of call ``nr``.

    Exactly those, or none at all where that cannot be decided within the limits. The program must
    have passed ``bpf.check``.
    """
    found = _followed(insns, nr, arch)
    return found if len(found) == 1 else _exactly(insns, nr, arch)


def together(
    programs: "Iterable[Insns]", nr: int, arch: int = abi.AUDIT_ARCH_X86_64
) -> "frozenset[int]":
    """Return the verdicts of several filters in force, the newest first: the strictest counts.

    Of equal ones the newest does; the actions are ordered as signed numbers (kernel/seccomp.c,
    seccomp_run_filters). None at all: it cannot be decided. Exact where at most one of them has
    several; they let the call through exactly if each does.
    """
    return strictest(outcomes(program, nr, arch) for program in programs)


def strictest(each: "Iterable[frozenset[int]]") -> "frozenset[int]":
    """Return what filters answer together, of what each can answer; see ``together``.

    One that is not decided leaves the others unasked: whoever is confined has hundreds for us.
    """
    newer = frozenset((abi.SECCOMP_RET_ALLOW,))
    for older in each:
        if not older:
            return older
        # As ``stricter`` of each two of them, which a filter of many verdicts makes millions.
        top_newer, top_older = max(map(_signed, newer)), max(map(_signed, older))
        newer = frozenset(
            [verdict for verdict in newer if _signed(verdict) <= top_older]
            + [verdict for verdict in older if _signed(verdict) < top_newer]
        )
    return newer


def surely_lets_through(programs: "Iterable[bytes]", nr: int) -> bool:
    """Tell whether filters let a call through, for who holds a process meanwhile.

    False also where the answer takes longer than to run each of them once.
    """
    for insns in map(decode, programs):
        try:
            found = follow(insns, (nr, abi.AUDIT_ARCH_X86_64, *_UNKNOWN), len(insns))
        except (Undecided, BpfError):
            return False
        if not {each & abi.SECCOMP_RET_ACTION_FULL for each in found} <= LETTING:
            return False
    return True


def stricter(newer: int, older: int) -> int:
    """Return which of two filters' verdicts on one call counts (kernel/seccomp.c)."""
    return older if _signed(older) < _signed(newer) else newer


def names(verdicts: "Iterable[int]") -> str:
    """Name verdicts: ``ALLOW``, ``ERRNO(1) or KILL_PROCESS``; ``undecided`` if there are none."""
    return " or ".join(sorted(map(action_name, verdicts))) or "undecided"


def _followed(insns: "Insns", nr: int, arch: int) -> "frozenset[int]":
    """Return a set that holds every verdict, or nothing where a value or the limit forbids it."""
    try:
        return frozenset(map(canonical, follow(insns, (nr, arch, *_UNKNOWN), _INSTRUCTIONS)))
    except Undecided:
        return frozenset()


def _exactly(insns: "Insns", nr: int, arch: int) -> "frozenset[int]":
    """Return the verdicts by the proof's means, which no ordinary start imports."""
    from shim.bpf.bdd import Diagram, TooLarge
    from shim.bpf.symbolic import verdicts

    diagram = Diagram(_WORK)
    try:
        root = verdicts(
            diagram, insns, {abi.SECCOMP_DATA_NR // 4: nr, abi.SECCOMP_DATA_ARCH // 4: arch}
        )
    except TooLarge:
        return frozenset()
    return frozenset(diagram.values(root))  # type: ignore[arg-type]  # canonical ones


def _signed(verdict: int) -> int:
    action = verdict & abi.SECCOMP_RET_ACTION_FULL
    return action - (1 << 32) if action >> 31 else action
