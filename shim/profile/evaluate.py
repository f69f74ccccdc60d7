"""What a profile says about one system call, read as libseccomp will read it.

The container start path imports this module: it imports constants and the error, and the catalogue
where a rule denies by a number. The core serves the flat ``linux.seccomp`` of the OCI runtime spec
and, with ``shim.profile.docker``, Docker's format.

libseccomp keeps the first unconditional rule of a call and forgets the conditional ones beside it
(measured with 2.5.4): so the rules are read in order, up to the first one that always applies. A
rule that can deny outweighs one that can allow: an admin who wrote the call's name beside a denial
meant it, also where no libseccomp would resolve what he wrote (a number, ``sys_uretprobe``).
"""

from shim import abi
from shim.errors import ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# The actions, and what filters return for them (libseccomp, include/seccomp.h.in).
ALLOWING = {
    "SCMP_ACT_ALLOW": abi.SECCOMP_RET_ALLOW,
    "SCMP_ACT_LOG": abi.SECCOMP_RET_LOG,
}
SUPERVISED = {
    "SCMP_ACT_NOTIFY": abi.SECCOMP_RET_USER_NOTIF,
    "SCMP_ACT_TRACE": abi.SECCOMP_RET_TRACE,
}
DENYING = {
    "SCMP_ACT_ERRNO": abi.SECCOMP_RET_ERRNO,
    "SCMP_ACT_KILL": abi.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": abi.SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_KILL_THREAD": abi.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_TRAP": abi.SECCOMP_RET_TRAP,
}
ACTIONS = {**ALLOWING, **SUPERVISED, **DENYING}

X86_64 = "SCMP_ARCH_X86_64"

# The keys of a profile and of a rule that are read here.
_OF_PROFILE = ("defaultAction", "defaultErrnoRet", "architectures", "syscalls")
_KEYS = frozenset((*_OF_PROFILE, "names", "name", "action", "errnoRet", "args"))

# How far a rule applies to a process on x86-64 (a condition on arguments is looked at apart).
ALWAYS, SOMETIMES, NEVER = "always", "sometimes", "never"

# What the rules of a call amount to, the weightier the higher.
_VERDICTS = ("denied-by-default", "conditional", "allows", "supervised", "explicit-deny")
_CONDITIONAL, _ALLOWS, _SUPERVISES, _DENIES = range(1, 5)


def evaluate(seccomp: "dict[str, object] | None", name: str) -> "tuple[str, str]":
    """Tell what the flat ``linux.seccomp`` of a config.json says about the call ``name``.

    Returns the verdict and a one-line reason. Verdicts: ``unconfined``, ``no-x86-64``, ``allows``,
    ``conditional`` (allowed with certain arguments only), ``explicit-deny``, ``supervised`` (a
    listener decides, or by name a tracer), ``default-allows``, ``denied-by-default``.
    ShimError: wrong types or an unknown action; its subject is the JSON pointer of the place.
    """
    if seccomp is None:
        return "unconfined", "there is no profile"
    listed = strings(table(seccomp, ""), "architectures", "")
    _spelled(seccomp, "")
    for index, rule in enumerate(rules(seccomp)):
        if isinstance(rule, dict):
            _spelled(rule, f"/syscalls/{index}")
    return verdict(seccomp, name, listed, names_of, always)


def verdict(
    profile: "dict[str, object]",
    name: str,
    architectures: "list[str]",
    names: "Callable[[dict[str, object], str], list[str]]",
    applies: "Callable[[dict[str, object], str], str]",
) -> "tuple[str, str]":
    """Read the rules of ``profile`` for ``name``, as ``evaluate`` describes.

    ``names`` gives the names of a rule, ``applies`` one of ALWAYS, SOMETIMES, NEVER; both are given
    the rule and its JSON pointer.
    """
    syscalls = rules(profile)
    if not profile.get("defaultAction") and not syscalls:
        # runc (specconv.SetupSeccomp) and Docker both take this for a profile switched off.
        return "unconfined", "the profile has neither a default action nor rules"
    default = action_of(profile, "defaultAction", "")
    rank, reason = 0, ""
    decided = False
    for index, rule in enumerate(syscalls):
        pointer = f"/syscalls/{index}"
        table(rule, pointer)
        action = action_of(rule, "action", pointer)
        conditions = sequence(rule, "args", pointer)
        listed = names(rule, pointer)
        if decided or not (name in listed if action in ALLOWING else denies(rule, listed, name)):
            continue
        scope = applies(rule, pointer)
        if scope == NEVER:
            continue
        # Runtimes leave out a rule that does what the default does: it decides nothing.
        same = same_action(profile, rule)
        decided = scope == ALWAYS and not conditions and not same
        if action in DENYING:
            as_default = ", as by default" if same else ""
            this = _DENIES, f"denied by name in the rule {pointer} with {action}{as_default}"
        elif action in SUPERVISED:
            this = _SUPERVISES, f"left to {action} by the rule {pointer}"
        elif same:
            continue
        elif decided:
            this = _ALLOWS, f"allowed already by the rule {pointer}"
        else:
            limit = "for certain arguments" if conditions else "under a condition"
            this = _CONDITIONAL, f"allowed {limit} only, by the rule {pointer}"
        if this[0] > rank:
            rank, reason = this
    if rank > _CONDITIONAL:
        return _VERDICTS[rank], reason
    # SECCOMP_RET_TRACE is ENOSYS where nobody traces (kernel/seccomp.c), and no runtime does.
    traced = default == "SCMP_ACT_TRACE"
    lacking = traced or default in DENYING
    how = f"denied by the default action {default}"
    if traced:
        how = f"left to the default action {default}, which gives ENOSYS without a tracer"
    if architectures and X86_64 not in architectures and not rank and lacking:
        # libseccomp filters the native architecture listed or not (measured with runc 1.1.5 to
        # 1.3.6 and crun 1.8.1 to 1.28): such a container lacks the call like any other.
        return "no-x86-64", f"{how}, though {X86_64} is not listed"
    if default in ALLOWING:
        return "default-allows", f"the default action {default} allows it"
    if default == "SCMP_ACT_NOTIFY":
        return "supervised", f"left to the default action {default}, a supervisor's"
    return _VERDICTS[rank], reason or f"{how}{'' if traced else ' only'}"


def denies(rule: "dict[str, object]", listed: "list[str]", name: str) -> bool:
    """Tell whether a denying ``rule`` with the names ``listed`` means the call ``name``.

    More counts than runtimes resolve: who wrote any of it does not want the call let through.
    """
    if name in listed:
        return True
    single = rule.get("name")  # Docker's key, of which runtimes know nothing
    spellings = [*listed, single] if isinstance(single, str) else listed
    return any(_means(spelling, name) for spelling in spellings)


def plain(spelling: str) -> "str | int":
    """Return the call's name that ``spelling`` stands for, or its number where it is one."""
    word = spelling.partition("\0")[0].strip().casefold()  # as C reads it, and so libseccomp
    for prefix in ("__x64_", "__nr_", "sys_", "x32_", "x64_"):
        word = word.removeprefix(prefix)
    try:
        number = int(word, 16 if word.startswith("0x") else 10)
    except ValueError:
        return word
    return number & ~abi.X32_SYSCALL_BIT


def _means(spelling: str, name: str) -> bool:
    """Tell whether ``spelling`` is some spelling of the call ``name``, or its number."""
    word = plain(spelling)
    return word == name or (isinstance(word, int) and word == _number_of(name))


def _number_of(name: str) -> "int | None":
    """Return the number of call ``name`` on x86-64, None if that is not known."""
    if name.startswith(abi.TEST_SYSCALL):
        return int(name.removeprefix(abi.TEST_SYSCALL))
    from shim.catalog import every, kernel_injected

    # A start asks for those that kernels inject: the large table is not read for them.
    call = kernel_injected().get(name) or every().get(name)
    return call.numbers.get("x86_64") if call else None


def _spelled(where: "dict[str, object]", pointer: str) -> None:
    """Refuse a key that Go's encoding/json would take for one of ours and a C runtime would not."""
    for key in where.keys() - _KEYS:
        for known in _KEYS:
            if key.casefold() == known.casefold():
                raise ShimError(f"must be spelled {known}", subject=f"{pointer}/{key}")


def same_action(profile: "dict[str, object]", rule: "dict[str, object]") -> bool:
    """Tell whether ``rule`` does just what the default of ``profile`` does, its errno included."""
    action = profile.get("defaultAction")
    if action != rule.get("action"):
        return False
    if action not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return True
    return _errno(profile, "defaultErrnoRet") == _errno(rule, "errnoRet")


def rules(profile: "dict[str, object]") -> "list[dict[str, object]]":
    """Return the rules of ``profile``; what each of them is gets looked at by who reads it."""
    return sequence(profile, "syscalls", "")  # type: ignore[return-value]


def names_of(rule: "dict[str, object]", pointer: str) -> "list[str]":
    """Return the names of an OCI rule."""
    return strings(rule, "names", pointer)


def always(_rule: "dict[str, object]", _pointer: str) -> str:
    """Tell that an OCI rule always holds: the format knows no conditions but those on arguments."""
    return ALWAYS


def action_of(where: "dict[str, object]", key: str, pointer: str) -> str:
    """Return the action under ``key``; ShimError where it is none that libseccomp has."""
    action = where.get(key)
    if action is None or action == "":
        raise ShimError("is missing", subject=f"{pointer}/{key}")
    if not isinstance(action, str):
        raise ShimError("must be a string", subject=f"{pointer}/{key}")
    if action not in ACTIONS:
        raise ShimError(f"unknown action {action}", subject=f"{pointer}/{key}")
    return action


def strings(where: "dict[str, object]", key: str, pointer: str) -> "list[str]":
    """Return the list of strings under ``key``; absent and null are empty, as in Go."""
    values = sequence(where, key, pointer)
    for value in values:
        if not isinstance(value, str):
            raise ShimError("must be a list of strings", subject=f"{pointer}/{key}")
    return values  # type: ignore[return-value]


def sequence(where: "dict[str, object]", key: str, pointer: str) -> "list[object]":
    """Return the list under ``key``; absent and null are empty, as in Go."""
    values = where.get(key)
    if values is None:
        return []
    if not isinstance(values, list):
        raise ShimError("must be a list", subject=f"{pointer}/{key}")
    return values


def table(value: object, pointer: str) -> "dict[str, object]":
    """Return ``value``; ShimError if it is no object."""
    if not isinstance(value, dict):
        raise ShimError("must be an object", subject=pointer or "the profile")
    return value


def _errno(where: "dict[str, object]", key: str) -> object:
    value = where.get(key)
    return 1 if value is None else value  # runc and crun take EPERM where none is given
