"""What is done with a container of any engine: start, exec, exec at a terminal, restart."""

import itertools
import os
import pty
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from shim.risk.uprobe import Uretprobe, function_offset
from vm.inside.cell import SECONDS, Cell, Outcome
from vm.inside.container import ROUNDS, End, judge
from vm.inside.engines import Engine

WAYS = ("start", "exec", "exec -it", "restart")
_serial = itertools.count(1)


def visit(
    engine: Engine, options: Sequence[str] = (), *, lives: bool, ways: Sequence[str] = WAYS
) -> Outcome:
    """Start a container, exec in it, exec at a terminal, restart it, each with a uretprobe."""
    name = f"lab{next(_serial)}"
    ends: dict[str, End] = {}
    main = victim_args(name)
    try:
        with Program(engine.cell, engine.starting(name, options, main)) as program:
            pid = program.victim(main)
            for way in (each for each in ways if each.startswith("exec")):
                args = victim_args(f"{name}-{len(ends)}")
                terminal = way == "exec -it"
                command = engine.executing(name, args, terminal)
                with Program(engine.cell, command, terminal=terminal) as inner:
                    ends[way] = inner.probed(inner.victim(args))
            ends["start"] = program.probed(pid)
        if "restart" in ways:
            with Program(engine.cell, engine.restarting(name)) as program:
                ends["restart"] = program.probed(program.victim(main))
    finally:
        engine.remove(name)
    return together({way: judge(end, lives=lives) for way, end in ends.items()})


def together(outcomes: dict[str, Outcome]) -> Outcome:
    """Return one outcome for several; where they differ, it tells of each."""
    told = {outcome.told for outcome in outcomes.values()}
    words = [f"{way}: {outcome.told}" for way, outcome in outcomes.items()]
    wrong = [f"{way}: {wrong}" for way, o in outcomes.items() for wrong in o.wrong]
    return Outcome(told.pop() if len(told) == 1 else "; ".join(words), wrong)


def victim_args(name: str) -> list[str]:
    """Return the command of the victim that goes by ``name``."""
    return ["/victim", "answer", str(ROUNDS), name]


class Program:
    """A client that runs until a container's process has ended, with that process's exit status."""

    def __init__(self, cell: Cell, command: list[str], *, terminal: bool = False) -> None:
        self.cell = cell
        self.terminal = -1
        inner = outer = subprocess.PIPE
        if terminal:
            self.terminal, inner = pty.openpty()
            outer = inner
        self.process = subprocess.Popen(
            cell.command(command),
            stdin=inner,
            stdout=outer,
            stderr=outer,
            start_new_session=True,
        )
        if terminal:
            os.close(inner)

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def victim(self, args: list[str]) -> int:
        """Wait until the process with exactly these ``args`` is ready; give its pid."""
        wanted = b"".join(arg.encode() + b"\0" for arg in args)
        deadline = time.monotonic() + SECONDS
        while True:
            began = time.process_time()
            for process in Path("/proc").glob("[0-9]*"):
                if _read(process / "cmdline") == wanted:
                    ready = process / "root" / f"ready-{args[-1]}"
                    if ready.exists():
                        return int(process.name)
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{args} did not start: {self._ended()}")
            # Of the guest's only processor the engine gets nine tenths.
            time.sleep(9 * (time.process_time() - began))

    def probed(self, pid: int) -> End:
        """Put a uretprobe on it, let it go, and tell how it ended."""
        root = Path(f"/proc/{pid}/root")
        name = _read(Path(f"/proc/{pid}/cmdline")).split(b"\0")[-2].decode()
        offset = function_offset(self.cell.root / "run/lab/bin/victim", "answer")
        probe = Uretprobe(root / "victim", offset, pid)
        try:
            (root / f"go-{name}").touch()
            code, output, errors = self._ended()
            return End(code, output, errors, probe.hits())
        finally:
            probe.close()

    def _ended(self) -> tuple[int, str, str]:
        if self.terminal < 0:
            output, errors = self.process.communicate(timeout=SECONDS)
            return self.process.returncode, output.decode(), errors.decode()
        seen = b""
        while data := _from(self.terminal):
            seen += data
        return self.process.wait(SECONDS), seen.decode().replace("\r", ""), ""


def _from(terminal: int) -> bytes:
    """Return what is there; nothing once nobody has the other side open, which Linux calls EIO."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # gone meanwhile
        return b""
