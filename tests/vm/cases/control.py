"""Docker's default profile and no shim: the container dies where the kernel lets the filter win.

The same container without a probe ends well: it is the probe that kills it.
"""

from vm.inside.cell import Cell, Outcome
from vm.inside.container import default_profile, judge, probed, unprobed

VARIANTS = ("runc", "crun")


def run(cell: Cell, runtime: str) -> Outcome:
    """Run it without and with a probe."""
    quiet = unprobed(cell, runtime, default_profile())
    outcome = judge(probed(cell, runtime, default_profile()), lives=not cell.kills)
    return outcome.expect(quiet.lived, f"without a probe: {quiet.told} {quiet.errors}")
