"""The stack's own perf puts the uretprobe on a container with the prestart hook: it lives."""

import os
import subprocess
from pathlib import Path

from vm.inside.cell import SECONDS, Cell, Outcome
from vm.inside.container import default_profile, judge, probed

EVENT = "probe_lab:answer__return"
DATA = "/run/perf.data"


def run(cell: Cell) -> Outcome:
    """Run it under runc with ``perf record`` attached."""
    return judge(probed(cell, "runc", default_profile(), hook=True, attach=Perf), lives=True)


class Perf:
    """``perf probe`` and ``perf record`` of the stack.

    ``perf stat`` counts nothing of a process that has run for no time. So it seems where the clock
    of a guest goes on by ticks alone: where it found the host too busy to measure the processor's.
    """

    def __init__(self, cell: Cell, pid: int, victim: Path) -> None:
        self.cell = cell
        path = f"/{victim.relative_to(cell.root)}"
        self._perf("probe", "-x", path, f"{EVENT.removesuffix('__return')}=answer%return")
        control, acknowledge = (cell.root / "run" / name for name in ("control", "acknowledge"))
        for fifo in (control, acknowledge):
            os.mkfifo(fifo)
        record = ["perf", "record", "-q", "-B", "-c", "1", "-e", EVENT, "-p", str(pid), "-o", DATA]
        # Starts disabled; what it acknowledges it has done.
        record += ["--delay", "-1", "--control", "fifo:/run/control,/run/acknowledge"]
        self.process = subprocess.Popen(cell.command(record))
        ends = [os.open(fifo, os.O_RDWR) for fifo in (control, acknowledge)]
        os.write(ends[0], b"enable\n")
        os.read(ends[1], 16)
        for end in ends:
            os.close(end)
        control.unlink()
        acknowledge.unlink()

    def hits(self) -> int:
        """Return how many hits perf has recorded when the process has ended."""
        self.process.wait(SECONDS)
        return self._perf("script", "-i", DATA, "-F", "event").count(EVENT)

    def close(self) -> None:
        """Take the probe off."""
        self.process.kill()
        self.process.wait()
        (self.cell.root / DATA[1:]).unlink(missing_ok=True)
        self.cell.run(["perf", "probe", "--del", "probe_lab:*"])

    def _perf(self, *words: str) -> str:
        done = self.cell.run(["perf", *words])
        if done.returncode:
            raise RuntimeError(f"perf {words[0]}: {done.stderr}")
        return done.stdout
