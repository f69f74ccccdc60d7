"""Become the real runtime: what it is started with must be what our caller started us with."""

from shim import lightos as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def exec_runtime(real: str, argv: "list[str]") -> "NoReturn":
    """Execute ``real`` with ``argv`` in this very process; OSError if it cannot be executed.

    What the interpreter changed at its start is undone: it ignores SIGPIPE and SIGXFSZ, and in
    the C locale it adds LC_CTYPE to the environment (PEP 538), also when it is told to ignore that.
    """
    import _signal

    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    os.execve(real, argv, _given())


def _given() -> "dict[bytes, bytes]":
    """Return the environment that this process was started with; of a name's values the first."""
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return dict(os.environb)
    given: dict[bytes, bytes] = {}
    for entry in entries:
        name, separator, value = entry.partition(b"=")
        if separator and name:
            given.setdefault(name, value)
    return given
