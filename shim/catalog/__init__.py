"""The catalogue of calls that profiles may not know yet; its facts are profiles/syscalls.yaml."""


class Syscall:
    """One call of the catalogue.

    ``numbers`` maps an architecture (``x86_64``, ``i386``, ``x32``, ``aarch64``, ...) to the call's
    number; an architecture that is absent has no such call. ``kind`` is
    ``kernel-injected`` (the kernel makes a process issue it) or ``program`` (programs call it).
    ``libseccomp`` is the first release that knows it, empty where none does yet.
    """

    __slots__ = ("kind", "libseccomp", "name", "numbers")

    def __init__(
        self,
        name: str,
        numbers: dict[str, int],
        kind: str,
        libseccomp: str,
    ) -> None:
        self.name = name
        self.numbers = numbers
        self.kind = kind
        self.libseccomp = libseccomp


def load() -> dict[str, Syscall]:
    """Return every call of the catalogue by name, from the generated module."""
    from shim.catalog.data import ROWS

    return {row[0]: Syscall(*row) for row in ROWS}


def kernel_injected() -> dict[str, Syscall]:
    """Return the calls that a kernel makes a process issue without the program's doing."""
    return {name: call for name, call in load().items() if call.kind == "kernel-injected"}


def known_names() -> frozenset[str]:
    """Return the names of all calls that kernels have, whatever their architecture."""
    from shim.catalog.numbers import ELSEWHERE, numbers

    return frozenset(ELSEWHERE).union(load(), *numbers().values())
