"""What ``shim.at_risk`` and ``shim.probe_host`` answer: stable, for programs that attach probes."""

from dataclasses import dataclass

from shim.host.cache import facts
from shim.risk import scan
from shim.risk.outlook import SAFE


@dataclass(frozen=True)
class Verdict:
    """What would become of a process if a uretprobe in it were hit now.

    ``at_risk``: on this kernel it would die, or may, as far as is known: whoever could not be read
    is at risk. ``outcome`` is ``dies``, ``undecided``,
    ``unread`` or ``safe`` on a kernel that leaves the call to filters, whatever this one does;
    ``signal`` is what it would die of. ``filters`` is what its filters answer (``ERRNO(1)``),
    ``owner`` whose filter that is: ``runtime``, or ``own`` where no profile of a container helps.
    ``kernel`` is the kernel's way with the call: ``absent``, ``filtered``, ``exempt``, ``unknown``.
    ``container`` is the id of its container, empty where it is in none that is known, and
    ``engine`` what runs that. ``started`` with ``pid`` tells the process from a later one of the
    same number (field 22 of /proc/PID/stat).
    """

    pid: int
    started: str
    at_risk: bool
    outcome: str
    signal: str
    filters: str
    owner: str
    why: str
    kernel: str
    container: str
    engine: str


@dataclass(frozen=True)
class HostProbe:
    """What this kernel does with the calls that it makes processes issue.

    ``calls`` maps ``uretprobe`` and ``uprobe`` to ``absent``, ``filtered``, ``exempt`` or
    ``unknown``; ``kills``: a uretprobe may kill a process whose filter denies the call.
    """

    release: str
    calls: dict[str, str]
    kills: bool


def at_risk(pid: int, syscall: str = "uretprobe") -> Verdict:
    """Return the verdict on process ``pid``; ShimError: there is none, or we are not root."""
    scan.refuse_without_root()
    [call] = scan.calls([syscall])
    where, seen = scan.one(pid, [call])
    found = seen.outlooks[call.name]
    state = scan.state(call)
    return Verdict(
        pid=pid,
        started=seen.process.started,
        at_risk=found.outcome != SAFE and state in scan.DECIDING,
        outcome=found.outcome,
        signal=found.signal,
        filters=found.verdict,
        owner=found.owner,
        why=found.why,
        kernel=state,
        container=where.ident if where.kind == "container" else "",
        engine=where.engine if where.kind == "container" else "",
    )


def probe_host() -> HostProbe:
    """Return what this kernel does, found by trying once a boot."""
    known = facts()
    states = {name: str(call["state"]) for name, call in known["syscalls"].items()}
    return HostProbe(str(known["kernel"]["release"]), states, states["uretprobe"] in scan.DECIDING)
