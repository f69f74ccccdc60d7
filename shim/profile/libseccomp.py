"""Which names a release of libseccomp knows, and the numbers that it has for them.

Taken from its src/syscalls.csv at each tag; tests/profile/test_model.py compares the outcome with
what runtimes of several user lands load.
"""

import re

from shim import abi, catalog
from shim.errors import ShimError
from shim.host.runtimes import numbers

try:
    import pyseccomp as pyseccomp  # noqa: PLC0414 - for the others here
except RuntimeError:  # what pyseccomp raises where it finds no library
    raise ShimError(
        "there is no libseccomp", hint="install the package libseccomp2 (libseccomp)"
    ) from None

# Besides releases: all that can be given a number, and just what the library here knows.
AS_WRITTEN, HERE = "", "here"

# Before it 32-bit x86 is numbered otherwise, and x32 filtered otherwise.
OLDEST = "2.5.0"
# Names outside the catalogue that came later, and a number that a release gave to a known name.
_LEARNT = {
    "close_range": (2, 5, 2),
    "epoll_pwait2": (2, 5, 2),
    "landlock_add_rule": (2, 5, 2),
    "landlock_create_ruleset": (2, 5, 2),
    "landlock_restrict_self": (2, 5, 2),
    "memfd_secret": (2, 5, 2),
    "mount_setattr": (2, 5, 2),
    "process_madvise": (2, 5, 2),
    "quotactl_fd": (2, 5, 2),
    "process_mrelease": (2, 5, 3),
    "futex_waitv": (2, 5, 4),
    "set_mempolicy_home_node": (2, 5, 4),
}
_NUMBERED = {("map_shadow_stack", pyseccomp.Arch.X32): (2, 5, 6)}

# The catalogue's keys.
_KEYS = {
    pyseccomp.Arch.X86_64: "x86_64",
    pyseccomp.Arch.X86: "i386",
    pyseccomp.Arch.X32: "x32",
    pyseccomp.Arch.AARCH64: "aarch64",
    pyseccomp.Arch.ARM: "arm",
}
_UNKNOWN = -1  # __NR_SCMP_ERROR; other negative numbers stand for calls of other architectures


class Names:
    """The names as ``release`` knows them: an upstream release, AS_WRITTEN or HERE.

    A release that came after the library here has all of its names, and those of the catalogue.
    ShimError: a release before OLDEST.
    """

    def __init__(self, release: str) -> None:
        self.exact = release == HERE
        self.release = () if self.exact else _release(release)
        if self.release and self.release < numbers(OLDEST):
            raise ShimError(
                f"libseccomp {release} is not modelled, only {OLDEST} and later", subject=release
            )
        self.catalog = {} if self.exact else catalog.load()

    def knows(self, name: str) -> bool:
        """Tell whether a rule for ``name`` is taken rather than dropped."""
        call = self.catalog.get(name)
        if self.release and call:
            return bool(call.libseccomp) and numbers(call.libseccomp) <= self.release
        if call:
            return True
        return _known_here(name) and (not self.release or _LEARNT.get(name, ()) <= self.release)

    def number(self, name: str, arch: int) -> int | None:
        """Return the number of ``name`` for libseccomp's ``arch`` (x32: its bit set), if any."""
        if not self.knows(name):
            return None
        call = self.catalog.get(name)
        if not call or arch not in _KEYS or (not self.release and _known_here(name)):
            return self.here(name, arch)
        number = call.numbers.get(_KEYS[arch])
        since = _NUMBERED.get((name, arch))
        if number is None or (since and self.release and self.release < since):
            return None
        return number | abi.X32_SYSCALL_BIT if arch == pyseccomp.Arch.X32 else number

    def here(self, name: str, arch: int) -> int | None:
        """Return the number that the library here has, and uses for its own rules."""
        found: int = pyseccomp.resolve_syscall(arch, name)
        return found if found >= 0 else None


def _known_here(name: str) -> bool:
    return bool(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) != _UNKNOWN)


def _release(text: str) -> tuple[int, ...]:
    """Read an upstream release such as 2.5.4; nothing for the empty text."""
    if text and not re.fullmatch(r"\d+(\.\d+)*", text, re.ASCII):
        raise ShimError("is no libseccomp release", subject=text, hint='write it as "2.5.4"')
    return numbers(text)
