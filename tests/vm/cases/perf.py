"""The stack's own perf puts the uretprobe on a container with the prestart hook: it lives."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vm.inside.cell import SECONDS, Cell, Outcome
from vm.inside.container import default_profile, judge, probed

EVENT = "probe_lab:answer__return"


def run(cell: Cell) -> Outcome:
    """Run it under runc with ``perf stat`` attached."""
    return judge(probed(cell, "runc", default_profile(), hook=True, attach=Perf), lives=True)


class Perf:
    """``perf probe`` and ``perf stat`` of the stack; ``before`` is what starts the latter."""

    def __init__(self, cell: Cell, pid: int, victim: Path, before: Sequence[str] = ()) -> None:
        self.cell = cell
        path = f"/{victim.relative_to(cell.root)}"
        done = cell.run(
            ["perf", "probe", "-x", path, f"{EVENT.removesuffix('__return')}=answer%return"]
        )
        if done.returncode:
            raise RuntimeError(f"perf probe: {done.stderr}")
        control, acknowledge = (cell.root / "run" / name for name in ("control", "acknowledge"))
        for fifo in (control, acknowledge):
            os.mkfifo(fifo)
        self.out = cell.root / "run/perf.txt"
        stat = ["perf", "stat", "-x,", "-e", EVENT, "-p", str(pid), "-o", "/run/perf.txt"]
        # Starts disabled; what it acknowledges it has done.
        stat += ["--delay", "-1", "--control", "fifo:/run/control,/run/acknowledge"]
        self.process = subprocess.Popen(cell.command([*before, *stat]))
        ends = [os.open(fifo, os.O_RDWR) for fifo in (control, acknowledge)]
        os.write(ends[0], b"enable\n")
        os.read(ends[1], 16)
        for end in ends:
            os.close(end)
        control.unlink()
        acknowledge.unlink()

    def hits(self) -> int:
        """Return the count that perf prints when the process has ended."""
        self.process.wait(SECONDS)
        lines = [li for li in self.out.read_text().splitlines() if EVENT in li]
        return int(lines[0].split(",")[0])

    def close(self) -> None:
        """Take the probe off."""
        self.process.kill()
        self.process.wait()
        self.out.unlink(missing_ok=True)
        self.cell.run(["perf", "probe", "--del", "probe_lab:*"])
