"""Which names a release of libseccomp knows, and the numbers that it has for them.

Taken from its src/syscalls.csv at each tag; tests/profile/test_model.py compares the outcome with
what runtimes of several user lands load.
"""

import re

from shim import catalog
from shim.catalog.table import ARCHITECTURES, OFFSETS
from shim.errors import ShimError
from shim.host.runtimes import knows, numbers

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
# A number that a release gave to a known name.
_NUMBERED = {("map_shadow_stack", pyseccomp.Arch.X32): (2, 5, 6)}

# The last release whose names have the same numbers in all later ones.
_STEADY = "2.5.4"

# The catalogue's keys, as far as the bindings here know their architectures.
KEYS = {
    getattr(pyseccomp.Arch, name): key
    for name, key in ARCHITECTURES.items()
    if hasattr(pyseccomp.Arch, name)
}
_UNKNOWN = -1  # __NR_SCMP_ERROR; other negative numbers stand for calls of other architectures


class Names:
    """The names as ``release`` knows them: an upstream release, AS_WRITTEN or HERE.

    A release that came after the library here has all of its names, and those of the catalogue.
    ShimError: a release before OLDEST.
    """

    def __init__(self, release: str) -> None:
        self.exact = release == HERE
        self.written = release
        self.release = () if self.exact else _release(release)
        if self.release and self.release < numbers(OLDEST):
            raise ShimError(
                f"libseccomp {release} is not modelled, only {OLDEST} and later", subject=release
            )
        self.catalog = {} if self.exact else catalog.every()

    def knows(self, name: str) -> bool:
        """Tell whether a rule for ``name`` is taken rather than dropped."""
        call = self.catalog.get(name)
        if call is None:
            return _known_here(name)
        return not self.release or knows(self.written, call.libseccomp)

    def number(self, name: str, arch: int) -> int | None:
        """Return the number of ``name`` for libseccomp's ``arch`` (x32: its bit set), if any."""
        if not self.knows(name):
            return None
        call = self.catalog.get(name)
        if not call or arch not in KEYS or (self._is_as_here(call) and _known_here(name)):
            return self.here(name, arch)
        key = KEYS[arch]
        number = call.numbers.get(key)
        since = _NUMBERED.get((name, arch))
        if number is None or (since and self.release and self.release < since):
            return None
        return number + OFFSETS.get(key, 0)

    def _is_as_here(self, call: catalog.Syscall) -> bool:
        """Tell whether the library here has its numbers: each release from OLDEST on has old ones.

        It alone knows which calls of old it answers by way of another (socketcall, ipc).
        """
        return not self.release or not numbers(_STEADY) < numbers(call.libseccomp)

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
