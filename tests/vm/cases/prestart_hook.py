"""Docker's default profile and seccomp-shim as an OCI prestart hook: the container lives.

So it does with limits that crun puts on its hooks, too: the guest's root may raise them.
"""

from vm.inside.cell import BIN, Cell, Outcome
from vm.inside.container import default_profile, judge, probed

VARIANTS = ("runc", "crun")
# Each would end the hook, its interpreter, or its line in the log. With fewer files crun itself
# cannot make the mounts.
LIMITS = {"STACK": 16384, "FSIZE": 16384, "DATA": 4_000_000, "NOFILE": 13, "AS": 20_000_000}


def run(cell: Cell, runtime: str) -> Outcome:
    """Run it with a probe, and read what the hook logged."""
    outcome = judge(probed(cell, runtime, default_profile(), hook=True), lives=True)
    _expect_logged(cell, outcome, "adjusted" if cell.kills else "left-alone")
    if runtime == "crun" and cell.kills:
        cell.install()
        for way in (runtime, f"{BIN}/seccomp-shim-{runtime}"):
            hook = way == runtime
            end = probed(cell, way, default_profile(), hook=hook, limits=LIMITS)
            outcome.wrong += [
                f"{way} with limits: {wrong}" for wrong in judge(end, lives=True).wrong
            ]
            _expect_logged(cell, outcome, "adjusted")
    return outcome


def _expect_logged(cell: Cell, outcome: Outcome, event: str) -> None:
    lines = cell.new_log()
    there = event in [line["event"] for line in lines]
    outcome.expect(there, f"the log has no line {event}: {lines}")
