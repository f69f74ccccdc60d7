"""Another user's rights over files, taken on for a while."""

import contextlib
import functools
import grp
import os
import pwd
from collections.abc import Callable, Iterator

from shim import abi
from shim.errors import ShimError
from shim.host import libc

_NOBODY = 65534


def user(uid: int) -> str:
    """Name a user."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


@contextlib.contextmanager
def rights(uid: int | None) -> Iterator[None]:
    """Reach files with the rights of user ``uid`` alone meanwhile; None: with our own.

    As a file server does it for its clients (setfsuid(2)): the kernel takes this thread's
    capabilities over files away, and since it is the same process for all else the user can neither
    stop nor trace it, as he could a child that had become his. Who is not root has but his own.
    """
    before = (libc.filesystem_ids(), tuple(os.getgroups()))
    if uid is None or os.geteuid() != 0:
        identity = _rights[0] if _rights else before
    else:
        identity = _identity(uid)
    if identity == before:
        yield
        return
    _rights.append(before)
    try:
        if not _take_on(*identity):
            raise ShimError(f"the rights of {user(identity[0][0])} cannot be taken on here")
        yield
    finally:
        if not _take_on(*_rights.pop()):
            os.abort()  # with somebody else's rights nothing more must be done


# What was before, the innermost last: the first are our own.
_rights: list[tuple[tuple[int, int], tuple[int, ...]]] = []


def as_us(step: Callable[[], None]) -> Callable[[], None]:
    """Return ``step`` with our own rights, for where another's are taken on."""

    def own() -> None:
        with rights(None):
            step()

    return own


def _take_on(ids: tuple[int, int], groups: tuple[int, ...]) -> bool:
    with contextlib.suppress(PermissionError):
        os.setgroups(groups)
    taken = libc.set_filesystem_ids(*ids) == ids and set(os.getgroups()) == set(groups)
    # With this bit set capabilities would stay, and the user's rights be root's (capabilities(7)).
    unfixed = libc.prctl(abi.PR_GET_SECUREBITS) & abi.SECBIT_NO_SETUID_FIXUP
    return taken and not (ids[0] and unfixed)


@functools.lru_cache(maxsize=256)
def _identity(uid: int) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Return a user and his group, and all groups that he is in."""
    try:
        known = pwd.getpwuid(uid)
    except KeyError:
        # Nobody who could log in. A group of the same number is his unless it is somebody's.
        with contextlib.suppress(KeyError):
            grp.getgrgid(uid)
            return (uid, _NOBODY), ()
        return (uid, uid), ()
    return (uid, known.pw_gid), tuple(os.getgrouplist(known.pw_name, known.pw_gid))
