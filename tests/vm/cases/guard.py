"""``guard -- perf stat``: not run for the container that would die, run for the one that lives.

Debian's perf is what attaches: for bpftrace the small kernels here have no BPF.
"""

from pathlib import Path

from vm.cases.perf import Perf
from vm.inside.cell import Cell, Outcome
from vm.inside.container import (
    ROUNDS,
    End,
    Running,
    default_profile,
    judge,
    probe_and_end,
)

VARIANTS = ("runc", "crun")
REDUCED = ("none",)  # elsewhere it runs whatever it is told


def run(cell: Cell, runtime: str) -> Outcome:
    """Guard by name, pid and file where a container would die, and perf where it lives."""
    command = ["/victim", "answer", str(ROUNDS)]
    outcome = Outcome("")
    with Running(cell, runtime, default_profile(), command, hook=False) as container:
        container.wait_for("ready")
        file = f"/{(container.rootfs / 'victim').relative_to(cell.root)}"
        for option, value in (
            ("--container", container.name),
            ("--pid", str(container.pid())),
            ("--binary", file),
        ):
            words = ["guard", option, value, "--", "touch", "/run/guard-ran"]
            done = cell.run(cell.shim(*words, site=True))
            outcome.expect(done.returncode == 3, f"{option}: {done.returncode} {done.stderr}")
            outcome.expect("would die of SIGSEGV" in done.stderr, f"{option}: {done.stderr}")
            outcome.expect(not (cell.root / "run/guard-ran").exists(), f"{option}: it was run")
        (container.rootfs / "go").touch()
        end = End(*container.end())
        outcome.expect(end.lived, f"nobody probed it, and it ended so: {end.told} {end.errors}")

    def guarded(_cell: Cell, pid: int, victim: Path) -> Perf:
        return Perf(
            cell, pid, victim, cell.shim("guard", "--container", container.name, "--", site=True)
        )

    with Running(cell, runtime, default_profile(), command, hook=True) as container:
        container.wait_for("ready")
        lived = judge(probe_and_end(container, guarded), lives=True)
    return Outcome(f"refused; with the hook {lived.told}", outcome.wrong + lived.wrong)
