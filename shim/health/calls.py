"""What a container's filter does with the calls that kernels inject, and what it should do."""

import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

from shim import abi
from shim.bpf import program as bpf
from shim.bpf.outcomes import names, together
from shim.catalog import kernel_injected
from shim.host.processes import status_of
from shim.host.ptrace import installed_filters

_LETTING = ("ALLOW", "LOG")


class Observation(NamedTuple):
    """A container that was to start: whether it did, why not, and its filter's verdicts by call."""

    started: bool
    reason: str
    verdicts: Mapping[str, str]


def observed(pid: int) -> Observation:
    """Look at the live process of a container."""
    own: list[bpf.Insns] = []
    try:
        # The oldest are those that we run under ourselves.
        if count := max(0, _filters(pid) - _filters(os.getpid())):
            own = [bpf.decode(program) for program in installed_filters(pid)[:count]]
    except OSError as error:
        return Observation(True, f"its filter cannot be read: {os.strerror(error.errno or 0)}", {})
    return Observation(
        True,
        "",
        {
            name: names(together(own, call.numbers["x86_64"]))
            for name, call in kernel_injected().items()
        },
    )


def expected(
    verdicts: Mapping[str, str],
    earlier: Mapping[str, str],
    *,
    allowed: Collection[str],
    free: Collection[str] = (),
) -> dict[str, str]:
    """Return the verdict that each call should have after a change: what it had, or a better one.

    ``earlier`` are the verdicts before, none if no container had started. ``allowed`` are calls
    that must be let through now, of ``free`` ones nothing is expected.
    """
    wanted = {}
    for name, now in verdicts.items():
        if now in _LETTING:
            # Distributions teach their libseccomp names that its release does not have.
            wanted[name] = now
        elif name in allowed:
            wanted[name] = "ALLOW"
        else:
            wanted[name] = "" if name in free else earlier.get(name, "")
    return wanted


def _filters(pid: int) -> int:
    """Return how many filters a process runs under; kernels before 5.9 tell only whether any."""
    found = status_of(pid, ("Seccomp", "Seccomp_filters"))
    mode, count = (int(found.get(key, ["0"])[0]) for key in ("Seccomp", "Seccomp_filters"))
    return count or int(mode == abi.SECCOMP_MODE_FILTER)
