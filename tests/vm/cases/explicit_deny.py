"""The profile denies uretprobe by name: the hook respects it, says so, and the container dies."""

import errno

from vm.inside.cell import Cell, Outcome
from vm.inside.container import BUNDLES, default_profile, judge, probed, with_rule

VARIANTS = ("runc", "crun")


def run(cell: Cell, runtime: str) -> Outcome:
    """Run it with the hook and a probe."""
    profile = with_rule(default_profile(), "SCMP_ACT_ERRNO", errno.EACCES)
    outcome = judge(probed(cell, runtime, profile, hook=True), lives=not cell.kills)
    # Of a container that an engine had here before, the last lines may come late.
    log = [line for line in cell.new_log() if str(line.get("bundle")).startswith(BUNDLES)]
    outcome.expect([line["event"] for line in log] == ["left-alone"], f"the log says {log}")
    said = any("explicit-deny" in str(line.get("reason")) for line in log)
    return outcome.expect(said or not cell.kills, f"the log does not tell of the denial: {log}")
