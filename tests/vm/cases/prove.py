"""``prove`` on this kernel: its own child and container die without the shim, and live with it."""

import json

from vm.inside.cell import Cell, Outcome

VARIANTS = ("child", "runc", "crun")
REDUCED = ("child",)


def run(cell: Cell, variant: str) -> Outcome:
    """Prove, and see that what is told is what happened."""
    words = [] if variant == "child" else ["--runtime", variant]
    done = cell.run(cell.shim("prove", "--json", *words, site=True))
    if done.returncode not in (0, 1):
        raise RuntimeError(f"prove: {done.stdout}{done.stderr}")
    document = json.loads(done.stdout)
    without, with_ = document["without"], document["with"]
    outcome = Outcome(f"{without['signal'] or 'lives'} without, {with_['signal'] or 'lives'} with")
    outcome.expect(without["lived"] != cell.kills, f"without: {without}")
    outcome.expect(without["signal"] == ("SIGSEGV" if cell.kills else ""), f"without: {without}")
    outcome.expect(with_["lived"] and with_["hits"] >= 25, f"with: {with_}")
    return outcome.expect(done.returncode == 0, f"exit status {done.returncode}")
