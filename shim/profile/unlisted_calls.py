"""The calls that a profile has never heard of: newer than what it names, and refused by EPERM.

A kernel without a call answers ENOSYS, and programs fall back to an older one; EPERM they take for
the last word. So these calls can be given ENOSYS: it is a refusal like the one before, and nothing
is allowed. Pure; the container start path imports this module where the setting ``unknown_calls``
asks for it.

The epoch of a profile is the newest call that it names, by number on x86-64: there, as on all
architectures from 424 (Linux 5.1) on, numbers are given in the order of time. Only the calls that
kernels inject stand elsewhere, and they are no program's: ENOSYS kills as EPERM does.
"""

from shim.catalog.data import FIRST
from shim.catalog.native import CALLS
from shim.profile import evaluate as core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

EPERM = 1
# Calls that i386 programs make through socketcall and ipc: there a rule on them is one on these.
_MULTIPLEXED = frozenset((
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen",
    "recv", "recvfrom", "recvmmsg", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto",
    "setsockopt", "shutdown", "socket", "socketpair", "msgctl", "msgget", "msgrcv", "msgsnd",
    "semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt", "shmget",
))  # fmt: skip


def unnamed(
    profile: "dict[str, object]",
    names: "Callable[[dict[str, object], str], list[str]]" = core.names_of,
) -> "tuple[dict[str, int], tuple[str, int]]":
    """Return the calls that no rule of ``profile`` names, with their numbers, and its epoch.

    Of the calls since Linux 5.1, and of older ones those above the epoch; none where the default
    action answers anything but EPERM, or no rule names a call. The epoch is a name and a number. A
    rule that holds for some containers or arguments only, or does what the default does, names a
    call as well: its author has thought of it. Any spelling counts (``shim.profile.evaluate``).
    ShimError: the profile cannot be understood.
    """
    if not refuses_by_eperm(profile):
        return {}, ("", -1)
    meant = named(profile, names)
    heard = [(name, nr) for name, nr, _ in CALLS if name in meant or nr in meant]
    if not heard:
        return {}, ("", -1)
    epoch = heard[-1]
    return {
        name: nr
        for name, nr, _ in CALLS
        if (nr >= FIRST or nr > epoch[1])
        and name not in meant
        and nr not in meant
        and name not in _MULTIPLEXED
    }, epoch


def named(
    profile: "dict[str, object]",
    names: "Callable[[dict[str, object], str], list[str]]" = core.names_of,
) -> "set[str | int]":
    """Return the names, and the numbers, that the rules of ``profile`` have in any spelling."""
    found: set[str | int] = set()
    for index, rule in enumerate(core.rules(profile)):
        single = rule.get("name")
        listed = names(rule, f"/syscalls/{index}")
        listed = [*listed, single] if isinstance(single, str) else listed
        found.update(map(core.plain, listed))
    return found


def refuses_by_eperm(profile: "dict[str, object]") -> bool:
    """Tell whether the default action of ``profile`` is the errno EPERM, given or implied."""
    if profile.get("defaultAction") != "SCMP_ACT_ERRNO":
        return False
    word = profile.get("defaultErrno")  # Podman's and CRI-O's key, the errno's name
    if word:
        return word == "EPERM"
    errno = profile.get("defaultErrnoRet")
    return errno is None or errno == EPERM
