"""Starts of two checkouts against each other: this one, and an older one or one with a change."""

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import report, timing
from bench.processes import state
from bench.starts import bundle, where_the_runtime_runs
from bench.timing import Case, Timed
from shim.engines.demonstration import docker_default
from shim.errors import ShimError
from support.containers import TEST_SYSCALL, Lab

SIDES = ("before", "now")
_LEGEND = """\
Medians in milliseconds: before, now, and their ratio. Work is the processor time of the start and
all that it waits for; with tracer, that of the processes besides that outlive it."""


@dataclass(frozen=True)
class Side:
    """How one checkout's executables are called: first with nothing to do, then at work."""

    name: str
    log: Path
    hooks: list[dict[str, Any]]
    wrappers: list[list[str]]

    def adjusted(self) -> int:
        """Count the starts that were adjusted."""
        if not self.log.exists():
            return 0
        return sum('"adjusted"' in line for line in self.log.read_text().splitlines())


@dataclass
class _Row:
    name: str
    cases: list[Case] = field(default_factory=list)


def measure(folder: Path, before: Path, runtimes: list[str], rounds: int) -> dict[str, Any]:
    """Time the starts of ``before`` and of this checkout, in turn, by each of ``runtimes``."""
    now = Path(__file__).resolve().parents[2]
    tables = []
    for runtime in runtimes:
        name = os.path.basename(runtime)
        within = folder / name
        within.mkdir()
        sides = [
            _side(side, checkout, within / side, runtime)
            for side, checkout in zip(SIDES, (before, now), strict=True)
        ]
        tables.append({"runtime": name, "rows": _table(within, sides, runtime, rounds)})
    return {"before": _commit(before), "now": _commit(now), "tables": tables}


def _side(name: str, checkout: Path, folder: Path, runtime: str) -> Side:
    """Have a checkout make its executables and say how they are called."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-P", Path(__file__).with_name("side.py"), folder, runtime],
        env={**os.environ, "PYTHONPATH": f"{checkout}:{checkout}/tests"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.splitlines() or [""])[-1]
        raise ShimError(f"no checkout to compare with: {last}", subject=str(checkout))
    found = json.loads(done.stdout)
    return Side(name, Path(found["log"]), found["hooks"], found["wrappers"])


def _table(folder: Path, sides: list[Side], runtime: str, rounds: int) -> list[dict[str, Any]]:
    lab = Lab(folder, runtime)
    with lab.container(seccomp=docker_default()) as container:
        container.ready()
        rows = [
            *_hooks(folder, sides, runtime),
            *_wrappers(folder, sides, runtime, container.name),
        ]
        timed = where_the_runtime_runs(
            runtime, lambda: timing.interleaved([c for r in rows for c in r.cases], rounds, folder)
        )
    counts = [side.adjusted() for side in sides]
    # Of the container's kept program crun's exec adjusts one, in the round that does not count.
    if min(counts) < (4 if "runc" in os.path.basename(runtime) else 3) * (rounds + 1):
        raise ShimError(f"{counts[0]} and {counts[1]} starts were adjusted", subject=runtime)
    pairs = [timed[at : at + 2] for at in range(0, len(timed), 2)]
    return [_figures(row.name, *pair) for row, pair in zip(rows, pairs, strict=True)]


def _hooks(folder: Path, sides: list[Side], runtime: str) -> list[_Row]:
    """Return rows of the hook by itself, and in whole starts."""
    rows = [_Row("hook alone, nothing to do")]
    given = state(folder)
    for side in sides:
        rows[0].cases.append(Case(side.name, side.hooks[0]["args"], given))
    for number, (what, work, nnp) in enumerate(
        (
            ("run, hook, nothing to do", 0, True),
            ("run, hook, injection, no_new_privileges", 1, True),
            ("run, hook, injection, without", 1, False),
        )
    ):
        row = _Row(what)
        for side in sides:
            place = folder / f"{side.name}-{number}"
            bundle(place, {"prestart": [side.hooks[work]]}, no_new_privileges=nnp)
            row.cases.append(Case(side.name, _run([runtime], runtime, place)))
        rows.append(row)
    return rows


def _wrappers(folder: Path, sides: list[Side], runtime: str, running: str) -> list[_Row]:
    """Return rows of a verb that passes, of whole starts, and of what joins a container."""
    rows = [_Row("wrapper, state of no container")]
    for side in sides:
        command = [*side.wrappers[0], "state", f"{running}-not"]
        rows[0].cases.append(Case(side.name, command, code=1))
    for work, what in enumerate(("nothing to do", f"test system call {TEST_SYSCALL}")):
        row = _Row(f"run, wrapper, {what}")
        joined = _Row(f"exec, wrapper, {what}")
        for side in sides:
            place = folder / f"{side.name}-wrapped-{work}"
            config = bundle(place, {}, no_new_privileges=True)
            command = _run(side.wrappers[work], runtime, place)
            row.cases.append(Case(side.name, command, prepare=_Fresh(place, config)))
            words = [*side.wrappers[work], *_more(runtime), "exec", running, "/usr/bin/true"]
            joined.cases.append(Case(side.name, words))
        rows += [row, joined]
    return rows


@dataclass(frozen=True)
class _Fresh:
    """Puts a bundle's own config.json back: the wrapper changes it."""

    folder: Path
    config: bytes

    def __call__(self) -> None:
        """Write it."""
        (self.folder / "config.json").write_bytes(self.config)


def _run(command: list[str], runtime: str, folder: Path) -> list[str]:
    ident = f"shim-bench-{os.getpid()}-{folder.name}"
    return [*command, *_more(runtime), "run", "--bundle", str(folder), ident]


def _more(runtime: str) -> list[str]:
    return ["--cgroup-manager=disabled"] if os.path.basename(runtime) == "crun" else []


def _figures(name: str, before: Timed, now: Timed) -> dict[str, Any]:
    """Return medians in milliseconds and their ratios."""
    figures: dict[str, Any] = {"name": name}
    for kind in ("work", "whole", "times"):
        old, new = (statistics.median(getattr(side, kind)) for side in (before, now))
        figures[kind] = [round(old, 2), round(new, 2), round(new / old, 2)]
    return figures


def _commit(checkout: Path) -> str:
    done = subprocess.run(
        ["git", "-C", checkout, "describe", "--always", "--dirty"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or str(checkout)


def text(result: dict[str, Any]) -> str:
    """Lay the comparison out for reading."""
    lines = [*report.head(result), f"before: {result['before']}, now: {result['now']}"]
    for table in result["tables"]:
        head = f"{table['runtime']:<42}"
        lines += ["", head + "".join(f"{kind:^26}" for kind in ("work", "with tracer", "clock"))]
        for row in table["rows"]:
            cells = "".join(
                "{:>9.2f}{:>9.2f}{:>8.2f}".format(*row[kind]) for kind in ("work", "whole", "times")
            )
            lines.append(f"  {row['name']:<40}{cells}")
    return "\n".join([*lines, "", _LEGEND])
