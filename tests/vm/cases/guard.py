"""``guard -- bpftrace``: not run for the container that would die, run for the one that lives.

The refused one lives on, since nobody attached. That the very same command kills it is shown with
``--force``. bpftrace is the stack's own; the kernels need no debugging symbols (BTF) for it.
"""

import subprocess
import time
from pathlib import Path

from vm.inside.cell import SECONDS, Cell, Outcome
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
    """Guard by name, pid and file where a container would die, and trace one that lives."""
    command = ["/victim", "answer", str(ROUNDS)]
    outcome = Outcome("")
    with Running(cell, runtime, default_profile(), command, hook=False) as container:
        container.wait_for("ready")
        file = f"/{(container.rootfs / 'victim').relative_to(cell.root)}"
        pid = container.pid()
        for option, value, tracer in (
            ("--container", container.name, _counting(pid)),
            ("--pid", str(pid), _counting(pid)),
            ("--binary", file, ["bpftrace", "-e", f"uretprobe:{file}:answer {{ @ = count(); }}"]),
        ):
            words = ["guard", option, value, "--", *tracer]
            done = cell.run(cell.shim(*words, site=True))
            outcome.expect(done.returncode == 3, f"{option}: {done.returncode} {done.stderr}")
            outcome.expect("would die of SIGSEGV" in done.stderr, f"{option}: {done.stderr}")
            outcome.expect(done.stdout == "", f"{option}: it was run: {done.stdout}")
        (container.rootfs / "go").touch()
        end = End(*container.end())
        outcome.expect(end.lived, f"nobody probed it, and it ended so: {end.told} {end.errors}")

    forced = _traced(cell, runtime, lives=False)
    lived = _traced(cell, runtime, lives=True)
    return Outcome(
        f"refused; forced {forced.told}; with the hook {lived.told}",
        [*outcome.wrong, *forced.wrong, *lived.wrong],
    )


def _traced(cell: Cell, runtime: str, *, lives: bool) -> Outcome:
    """Have bpftrace count in a container with the hook, or by force in one without."""
    command = ["/victim", "answer", str(ROUNDS)]
    with Running(cell, runtime, default_profile(), command, hook=lives) as container:
        container.wait_for("ready")
        guard = ["guard", "--container", container.name, *([] if lives else ["--force"]), "--"]

        def attach(_cell: Cell, pid: int, _victim: Path) -> Bpftrace:
            return Bpftrace(cell, [*cell.shim(*guard, site=True), *_counting(pid)])

        return judge(probe_and_end(container, attach), lives=lives)


class Bpftrace:
    """The stack's bpftrace, started by ``command``, from when it is attached."""

    def __init__(self, cell: Cell, command: list[str]) -> None:
        self.out = cell.root / "run/bpftrace.txt"
        with self.out.open("w") as out:
            self.process = subprocess.Popen(cell.command(command), stdout=out, stderr=out)
        deadline = time.monotonic() + SECONDS
        while "attached\n" not in self.out.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"{command}: {self.out.read_text()}")
            time.sleep(0.05)

    def hits(self) -> int:
        """Return the count that it prints when the process has ended."""
        self.process.wait(SECONDS)
        return sum(
            int(line.removeprefix("@hits: "))
            for line in self.out.read_text().splitlines()
            if line.startswith("@hits: ")
        )

    def close(self) -> None:
        """Take the probe off."""
        self.process.kill()
        self.process.wait()


def _counting(pid: int) -> list[str]:
    """Return the command that counts the returns of a container's victim, and says it is attached.

    The path is the container's own: with a pid bpftrace looks in that process's root. What a
    program prints is read, and so seen here, only once all of its probes are attached.
    """
    program = "uretprobe:/victim:answer { @hits = count(); } "
    program += 'interval:s:1 { printf("attached\\n"); }'
    return ["bpftrace", "-B", "line", "-p", str(pid), "-e", program]
