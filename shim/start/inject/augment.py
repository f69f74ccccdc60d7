"""Decide on a filter as the kernel is about to see it, and make the longer one. Pure."""

from shim import abi
from shim.bpf import emulator
from shim.bpf import program as bpf
from shim.bpf.outcomes import LETTING, names, outcomes
from shim.errors import LeftAlone, ShimError
from shim.start.digest import sha256

# Numbers that no profile can name show what the filter does with calls it does not know. They have
# neighbours that it may know on both sides: a range around the one would not hold the other.
_WITNESSES = (abi.TEST_SYSCALLS[0], abi.TEST_SYSCALLS[-1])
# What no filter returns: in the place of the old program it shows that this one is reached.
_REACHED = 1


LETS = "the filter lets it through already"
NOTHING_BY_EPERM = "no call that no rule names is refused by EPERM"
_EPERM = frozenset((abi.SECCOMP_RET_ERRNO | 1,))


class AlreadyLet(LeftAlone):
    """The filter lets all of the calls through as it is."""


def augmented(
    program: bytes, calls: "dict[str, int]", refused: "dict[str, int] | None" = None
) -> "dict[str, object]":
    """Return what the audit log says of a program that ``augment`` has made; nothing of others."""
    rest = program[len(calls) * 8 * bpf.PREFIX_LENGTH :]
    if refused:
        rest = rest[8 * bpf.front_length(rest) :]
    try:
        made, facts = augment(rest, calls, refused)
    except (LeftAlone, ShimError):
        return {}
    return facts if made == program else {}


def augment(
    old: bytes, calls: "dict[str, int]", refused: "dict[str, int] | None" = None
) -> "tuple[bytes, dict[str, object]]":
    """Put an allow in front of filter ``old`` for each of ``calls`` that only its default denies.

    And ENOSYS for each of ``refused``, which no rule of the profile names, where they get EPERM as
    what no profile can name does. "Only its default" is told by all that the filter can answer,
    whatever a call's arguments are. Returns the new program and what the audit log says of it.
    LeftAlone: no call needs it, or none of those that do may have it. ShimError: the program is not
    one that the kernel takes, or the check of the result failed.
    """
    insns = bpf.decode(old)
    bpf.check(insns)
    enosys = _refused_by_eperm(insns, refused) if refused else {}
    new = bpf.refuse(old, abi.AUDIT_ARCH_X86_64, enosys.values()) if enosys else old
    needing, reasons = {}, {}
    for name, nr in calls.items():
        before, reason = verdict_before(insns, nr)
        if reason:
            reasons[name] = reason
        else:
            needing[name] = before
            new = bpf.allow(new, abi.AUDIT_ARCH_X86_64, nr)
    if not needing and not enosys:
        kind = AlreadyLet if set(reasons.values()) <= {LETS} else LeftAlone
        told = [f"{name}: {reason}" for name, reason in reasons.items()]
        told += [NOTHING_BY_EPERM] if refused else []
        raise kind("; ".join(told))
    _prove(old, new, [calls[name] for name in needing], list(enosys.values()))
    facts: dict[str, object] = {}
    if needing:
        facts["syscall"] = ",".join(needing)
        facts["before"] = ",".join(needing.values())
        facts["after"] = ",".join("ALLOW" for _ in needing)
    if enosys:
        facts["enosys"] = ",".join(enosys)
    return new, {
        **facts,
        "length_before": len(old) // 8,
        "length_after": len(new) // 8,
        "sha256_before": sha256(old),
        "sha256_after": sha256(new),
        "proof": f"{(len(new) - len(old)) // 8} instructions in front of the old program, "
        "which follows byte for byte",
    }


def verdict_before(insns: "bpf.Insns", nr: int) -> "tuple[str, str]":
    """Name the verdict for ``nr`` and, unless it is just the default denial, why to leave it.

    The program must have passed ``program.check``.
    """
    verdicts = outcomes(insns, nr)
    here = names(verdicts)
    actions = {verdict & abi.SECCOMP_RET_ACTION_FULL for verdict in verdicts}
    if not verdicts:
        return here, "what the filter does with it is too much to be decided"
    if actions <= LETTING:
        return here, LETS
    supervised = here, f"the filter leaves it to a supervisor ({here})"
    traced = abi.SECCOMP_RET_TRACE in actions
    if abi.SECCOMP_RET_USER_NOTIF in actions or (traced and len(verdicts) > 1):
        return supervised
    if len(verdicts) > 1:
        return here, f"the filter decides on it by its arguments ({here})"
    # A verdict of one witness is enough to leave it alone: the other need not be looked at.
    for witness in _WITNESSES:
        default = outcomes(insns, witness if witness != nr else _neighbour(nr))
        if default != verdicts and traced:
            return supervised
        if default != verdicts:
            return here, (
                f"the filter denies it by name ({here}; unknown calls get {names(default)})"
            )
    return here, ""


def _refused_by_eperm(insns: "bpf.Insns", refused: "dict[str, int]") -> "dict[str, int]":
    """Return those of ``refused`` that get EPERM, the filter's default; its arguments whatever."""
    if any(outcomes(insns, witness) != _EPERM for witness in _WITNESSES):
        return {}
    return {name: nr for name, nr in refused.items() if outcomes(insns, nr) == _EPERM}


def _neighbour(nr: int) -> int:
    """Return another witness than ``nr`` where that is one itself."""
    return nr + 1 if nr + 1 in abi.TEST_SYSCALLS else nr - 1


def _prove(old: bytes, new: bytes, allowed: "list[int]", enosys: "list[int]") -> None:
    """Check what the shape promises: these alone are decided before the old program begins.

    What stands before it looks at the number and the architecture alone and leaves all else as it
    was, so one run of it tells of every argument; all other calls find the old program as it was.
    """
    if not new.endswith(old):
        raise ShimError("the longer filter does not end in the old one")
    front = bpf.decode(new[: len(new) - len(old)])
    reached, end = _REACHED, (bpf.RET_K, 0, 0, _REACHED)
    if bpf.decode(old[:8])[0][0] & 7 != abi.BPF_LD:  # it may use what A is: that has to be 0
        reached, end = 0, (bpf.RET_A, 0, 0, 0)
    front.append(end)
    bpf.check(front)
    codes = {code for code, _, _, _ in front[:-1]}
    if codes - bpf.PREFIX_CODES or any(code == bpf.LD_ABS and k > 4 for code, _, _, k in front):
        raise ShimError("what is put before the filter looks at more than the call")
    for nr in (*allowed, *enosys):
        for arch, other in (
            (abi.AUDIT_ARCH_X86_64, nr),
            (abi.AUDIT_ARCH_X86_64, nr - 1),
            (abi.AUDIT_ARCH_X86_64, nr + 1),
            (abi.AUDIT_ARCH_X86_64, nr | abi.X32_SYSCALL_BIT),
            (abi.AUDIT_ARCH_I386, nr),
            (abi.AUDIT_ARCH_AARCH64, nr),
        ):
            ours, meant = arch == abi.AUDIT_ARCH_X86_64, reached
            if ours and other in allowed:
                meant = abi.SECCOMP_RET_ALLOW
            elif ours and other in enosys:
                meant = abi.SECCOMP_RET_ENOSYS
            if emulator.verdict(front, other, arch) != meant:
                what = "decides on" if meant == reached else "does not answer as meant"
                raise ShimError(f"the longer filter {what} call {other:#x} of {arch:#x}")
