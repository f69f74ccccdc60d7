"""Calls 0-600 really made inside, with and without the hook: the same outcomes but for 335."""

# And ``seccomp-shim gaps --pid``, asked of both meanwhile, tells each of these outcomes.
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

from vm.inside.answers import disagreements, table
from vm.inside.cell import Cell, Outcome
from vm.inside.container import RIGHT, End, default_profile, running

VARIANTS = ("runc", "crun")
URETPROBE = "335"
CALLS = 2 * 601  # each with arguments all 0 and all -1
DENIED = "errno 1"
LET_THROUGH = "signal 4"  # the kernel's own answer to a call from outside its trampoline: SIGILL
# Emulated on a busy machine a process may not be read within the time that is right elsewhere.
TRIES, LATE = 4, "could not be looked at within"
TOLD = 10  # differences shown, where there are more than there must be


def run(cell: Cell, runtime: str) -> Outcome:
    """Sweep twice and compare."""
    with ThreadPoolExecutor() as pool:  # side by side: both wait for the calls that hang
        both = list(pool.map(lambda hook: _sweep(cell, runtime, hook), (False, True)))
    tables = [_table(end.output) for end, _ in both]
    calls = tables[0].keys() | tables[1].keys()
    differ = {call for call in calls if tables[0].get(call) != tables[1].get(call)}
    numbers = {call[0] for call in differ}
    outcome = Outcome("335 alone" if numbers == {URETPROBE} else f"{len(numbers)} differ")
    for (end, asked), calls_made in zip(both, tables, strict=True):
        whole = end.code == RIGHT and len(calls_made) == CALLS
        outcome.expect(whole, f"{len(calls_made)} of {CALLS} calls, {end.told}: {end.errors}")
        outcome.expect(not asked.returncode, f"gaps: {asked.stderr[-600:]}")
        if whole and not asked.returncode:
            wrong = disagreements(json.loads(asked.stdout), table(end.output))
            outcome.expect(not wrong, f"gaps tells otherwise: {wrong[:TOLD]}")
    seen = sorted((call, tables[0].get(call), tables[1].get(call)) for call in differ)
    if not cell.kills:
        return outcome.expect(not differ, f"differ: {seen[:TOLD]}")
    wanted = [((URETPROBE, arguments), DENIED, LET_THROUGH) for arguments in ("-1", "0")]
    return outcome.expect(seen == wanted, f"differ: {seen[:TOLD]}")


def _sweep(cell: Cell, runtime: str, hook: bool) -> "tuple[End, subprocess.CompletedProcess[str]]":
    """Sweep in a container; give its end, and what gaps said of its filter."""
    words = ("/victim", "sweep", "stay")  # it is there for as long as gaps may need to look at it
    with running(cell, runtime, default_profile(), *words, hook=hook) as container:
        container.wait_for_output()
        command = cell.shim("gaps", "--json", "--pid", str(container.pid()), site=True)
        for _ in range(TRIES):
            asked = cell.run(command)
            if LATE not in asked.stderr:
                break
        (container.rootfs / "go").touch()
        return End(*container.end()), asked


def _table(output: str) -> dict[tuple[str, str], str]:
    rows = (line.split(" ", 2) for line in output.splitlines())
    return {(nr, arguments): outcome for nr, arguments, outcome in rows}
