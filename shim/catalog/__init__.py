"""The catalogue of system calls; its facts are the files in profiles/."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Syscall:
    """One call of the catalogue.

    ``numbers`` maps an architecture (``x86_64``, ``i386``, ``x32``, ``aarch64``, ...) to the call's
    number; an architecture that is absent has no such call. ``kind`` is
    ``kernel-injected`` (the kernel makes a process issue it) or ``program`` (programs call it).
    ``libseccomp`` is the first release that knows it, empty where none does yet; ``kernel`` the
    first of Linux, empty for a number that never had code behind it. ``risk`` and ``users`` are
    told of calls since Linux 3.17.
    """

    __slots__ = ("kernel", "kind", "libseccomp", "name", "numbers", "risk", "users")

    def __init__(
        self,
        name: str,
        numbers: "dict[str, int]",
        kind: str,
        libseccomp: str,
        kernel: str = "",
        risk: str = "",
        users: str = "",
    ) -> None:
        self.name = name
        self.numbers = numbers
        self.kind = kind
        self.libseccomp = libseccomp
        self.kernel = kernel
        self.risk = risk
        self.users = users


def kernel_injected() -> "dict[str, Syscall]":
    """Return the calls that a kernel makes a process issue without the program's doing.

    The container start path asks for no others.
    """
    from shim.catalog.data import ROWS

    return {row[0]: Syscall(*row) for row in ROWS}


def every() -> "Mapping[str, Syscall]":
    """Return every call of every architecture by name."""
    from shim.catalog.table import calls

    return calls()


def load() -> "dict[str, Syscall]":
    """Return the calls that profiles may not know yet by name: those since Linux 5.18."""
    from shim.catalog.table import since

    return {
        name: call
        for name, call in every().items()
        if call.kind == "kernel-injected" or since(call) >= (5, 18)
    }


def known_names() -> "frozenset[str]":
    """Return the names of all calls that kernels have, whatever their architecture."""
    return frozenset(every())
