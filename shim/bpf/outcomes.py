"""What a filter can answer one system call, whatever its arguments and instruction pointer are.

The container start path imports this module. Number and architecture are known, all else is not:
where a branch looks at what is not known, both of its sides are followed. One verdict on all of
them is exact, and every filter made from a profile without conditions gives one. Several may be too
many (a path that no arguments lead down), so then the whole function is made, as for a proof.
"""

from shim import abi
from shim.bpf.emulator import Undecided, follow
from shim.bpf.program import action_name, canonical

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from shim.bpf.program import Insns

# Instructions followed, and steps of the proof, before it gives up: 20 ms and a tenth of a second.
# Docker's default profile takes some 100 instructions for a call.
_INSTRUCTIONS = 50_000
_WORK = 20_000
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
    strictest = frozenset((abi.SECCOMP_RET_ALLOW,))
    for program in programs:
        here = outcomes(program, nr, arch)
        strictest = frozenset(stricter(verdict, other) for verdict in strictest for other in here)
    return strictest


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
