"""Keeps containers alive when the kernel learns a call their seccomp profile has never heard of.

For programs that attach probes: ``at_risk`` and ``probe_host`` (docs/for-tracers.md).
"""

__version__ = "0.1.0"
__all__ = ["at_risk", "probe_host"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.risk.api import HostProbe, Verdict


# Every start imports this module: what these need is imported when they are called.
def at_risk(pid: int, syscall: str = "uretprobe") -> "Verdict":
    """Tell whether process ``pid`` would die if a uretprobe in it were hit now (as root).

    ShimError (``shim.errors``): there is no such process, or nothing can be read from here.
    """
    from shim.risk import api

    return api.at_risk(pid, syscall)


def probe_host() -> "HostProbe":
    """Return what this kernel does with the calls that it makes processes issue, by trying."""
    from shim.risk import api

    return api.probe_host()
