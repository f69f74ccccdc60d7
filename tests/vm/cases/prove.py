"""``prove`` on this kernel: its container dies without the hook, and lives with it."""

import json

from vm.inside.cell import Cell, Outcome

VARIANTS = ("runc", "crun")
REDUCED = ("runc",)


def run(cell: Cell, runtime: str) -> Outcome:
    """Prove, and see that what is told is what happened."""
    done = cell.run(cell.shim("prove", "--json", "--runtime", runtime, site=True))
    if not done.stdout:
        raise RuntimeError(f"prove: {done.returncode} {done.stderr}")
    document = json.loads(done.stdout)
    without, with_ = document["without"], document["with"]
    outcome = Outcome(f"{without['signal'] or 'lives'} without, {with_['signal'] or 'lives'} with")
    outcome.expect(without["lived"] != cell.kills, f"without: {without}")
    outcome.expect(without["signal"] == ("SIGSEGV" if cell.kills else ""), f"without: {without}")
    outcome.expect(with_["lived"] and with_["hits"] >= 25, f"with: {with_}")
    return outcome.expect(done.returncode == 0, f"exit status {done.returncode}")
