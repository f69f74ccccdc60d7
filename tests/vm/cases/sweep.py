"""Calls 0-600 really made inside, with and without the hook: the same outcomes but for 335."""

from vm.inside.cell import Cell, Outcome
from vm.inside.container import RIGHT, default_profile, unprobed

VARIANTS = ("runc", "crun")
URETPROBE = "335"
CALLS = 2 * 601  # each with arguments all 0 and all -1


def run(cell: Cell, runtime: str) -> Outcome:
    """Sweep twice and compare."""
    plain, shimmed = (
        unprobed(cell, runtime, default_profile(), "/victim", "sweep", hook=hook)
        for hook in (False, True)
    )
    tables = [_table(end.output) for end in (plain, shimmed)]
    differ = {call for call in tables[0].keys() | tables[1].keys() if _differ(call, *tables)}
    numbers = {call[0] for call in differ}
    outcome = Outcome("335 alone" if numbers == {URETPROBE} else f"{len(numbers)} differ")
    for end, table in zip((plain, shimmed), tables, strict=True):
        whole = end.code == RIGHT and len(table) == CALLS
        outcome.expect(whole, f"{len(table)} of {CALLS} calls, {end.told}: {end.errors}")
    seen = sorted((call, tables[0].get(call), tables[1].get(call)) for call in differ)
    return outcome.expect(numbers == ({URETPROBE} if cell.kills else set()), f"differ: {seen}")


def _table(output: str) -> dict[tuple[str, str], str]:
    rows = (line.split(" ", 2) for line in output.splitlines())
    return {(nr, arguments): outcome for nr, arguments, outcome in rows}


def _differ(call: tuple[str, str], one: dict[tuple[str, str], str], two: dict[tuple[str, str], str]) -> bool:
    return one.get(call) != two.get(call)
