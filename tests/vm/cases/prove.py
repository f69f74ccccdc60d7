"""``prove`` on this kernel: its container dies without the shim, and lives with it.

By a runtime with a hook, and by engines: Docker with us registered, the others by a wrapper that is
made for the proof.
"""

import json

from vm.inside.cell import Cell, Outcome
from vm.inside.engines import Containerd, Docker, Podman

VARIANTS = ("runc", "crun", "docker", "podman", "containerd")
REDUCED = ("runc",)


def run(cell: Cell, what: str) -> Outcome:
    """Prove, and see that what is told is what happened."""
    if what == "docker":
        docker = Docker(cell)
        cell.install("docker")
        return _proven(cell, what, f"DOCKER_HOST=unix://{docker.socket}")
    if what == "containerd":
        with Containerd(cell) as containerd:
            return _proven(cell, what, f"CONTAINERD_ADDRESS={containerd.inside}/sock")
    if what == "podman":
        Podman(cell, "runc")  # for its settings: podman's own storage is not used
    return _proven(cell, what)


def _proven(cell: Cell, what: str, *environment: str) -> Outcome:
    option = "--runtime" if what in ("runc", "crun") else "--engine"
    command = cell.shim("prove", "--json", option, what, site=True)
    done = cell.run(["env", *environment, *command])
    if not done.stdout:
        raise RuntimeError(f"prove: {done.returncode} {done.stderr}")
    document = json.loads(done.stdout)
    without, with_ = document["without"], document["with"]
    told = [each.get("why") or each["signal"] or "lives" for each in (without, with_)]
    outcome = Outcome(f"{told[0]} without, {told[1]} with")
    outcome.expect(without.get("lived") == (not cell.kills), f"without: {without}")
    outcome.expect(told[0] == ("SIGSEGV" if cell.kills else "lives"), f"without: {without}")
    outcome.expect(told[1] == "lives" and with_["hits"] >= 25, f"with: {with_}")
    return outcome.expect(done.returncode == 0, f"exit status {done.returncode}")
