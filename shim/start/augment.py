"""Decide on a filter as the kernel is about to see it, and make the longer one. Pure."""

from shim import abi
from shim.errors import ShimError
from shim.filter import bpf, emulate, prefix
from shim.start.decide import LeftAlone
from shim.start.digest import sha256

LETTING = (abi.SECCOMP_RET_ALLOW, abi.SECCOMP_RET_LOG)
_SUPERVISED = (abi.SECCOMP_RET_TRACE, abi.SECCOMP_RET_USER_NOTIF)


def augment(old: bytes, calls: "dict[str, int]") -> "tuple[bytes, dict[str, object]]":
    """Put an allow in front of filter ``old`` for each of ``calls`` that only its default denies.

    Returns the new program and what the audit log says of it. LeftAlone: no call needs it.
    ShimError: the program is not one that the kernel takes, or the check of the result failed.
    """
    insns = bpf.decode(old)
    bpf.check(insns)
    new = old
    needing, reasons = {}, []
    for name, nr in calls.items():
        before, reason = verdict_before(insns, nr)
        if reason:
            reasons.append(f"{name}: {reason}")
        else:
            needing[name] = before
            new = prefix.allow(new, abi.AUDIT_ARCH_X86_64, nr)
    if not needing:
        raise LeftAlone("; ".join(reasons))
    _prove(insns, old, new, [calls[name] for name in needing])
    return new, {
        "syscall": ",".join(needing),
        "before": ",".join(bpf.action_name(before) for before in needing.values()),
        "after": ",".join("ALLOW" for _ in needing),
        "length_before": len(old) // 8,
        "length_after": len(new) // 8,
        "sha256_before": sha256(old),
        "sha256_after": sha256(new),
        "proof": f"{(len(new) - len(old)) // 8} instructions in front of the old program, "
        "which follows byte for byte",
    }


def verdict_before(insns: "list[tuple[int, int, int, int]]", nr: int) -> "tuple[int, str]":
    """Give the verdict for ``nr`` and, unless it is just the default denial, why to leave it."""
    # A number that no profile can name shows what the filter does with calls it does not know.
    witness = abi.CANARIES[0] if nr != abi.CANARIES[0] else abi.CANARIES[1]
    verdict, default = (
        bpf.canonical(emulate.verdict(insns, number, abi.AUDIT_ARCH_X86_64))
        for number in (nr, witness)
    )
    action = verdict & abi.SECCOMP_RET_ACTION_FULL
    if action in LETTING:
        return verdict, "the filter lets it through already"
    if action in _SUPERVISED:
        return verdict, f"the filter leaves it to a supervisor ({bpf.action_name(verdict)})"
    if verdict != default:
        return verdict, (
            f"the filter denies it by name ({bpf.action_name(verdict)}; "
            f"unknown calls get {bpf.action_name(default)})"
        )
    return verdict, ""


def _prove(
    insns: "list[tuple[int, int, int, int]]", old: bytes, new: bytes, allowed: "list[int]"
) -> None:
    """Check with the emulator what the shape promises: ``allowed`` and nothing beside it."""
    longer = bpf.decode(new)
    if not new.endswith(old):
        raise ShimError("the longer filter does not end in the old one")
    for nr in allowed:
        if emulate.verdict(longer, nr, abi.AUDIT_ARCH_X86_64) != abi.SECCOMP_RET_ALLOW:
            raise ShimError(f"the longer filter does not let {nr} through")
        for arch, other in (
            (abi.AUDIT_ARCH_X86_64, nr - 1),
            (abi.AUDIT_ARCH_X86_64, nr + 1),
            (abi.AUDIT_ARCH_X86_64, nr | abi.X32_SYSCALL_BIT),
            (abi.AUDIT_ARCH_I386, nr),
            (abi.AUDIT_ARCH_AARCH64, nr),
        ):
            if other not in allowed and (
                emulate.verdict(longer, other, arch) != emulate.verdict(insns, other, arch)
            ):
                raise ShimError(f"the longer filter changes call {other:#x} of {arch:#x} too")
