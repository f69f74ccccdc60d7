"""Docker's default profile and seccomp-shim as an OCI prestart hook: the container lives."""

from vm.inside.cell import Cell, Outcome
from vm.inside.container import default_profile, judge, probed

VARIANTS = ("runc", "crun")


def run(cell: Cell, runtime: str) -> Outcome:
    """Run it with a probe, and read what the hook logged."""
    outcome = judge(probed(cell, runtime, default_profile(), hook=True), lives=True)
    events = [line["event"] for line in cell.new_log()]
    wanted = "adjusted" if cell.kills else "left-alone"
    return outcome.expect(wanted in events, f"the log has no line {wanted}: {events}")
