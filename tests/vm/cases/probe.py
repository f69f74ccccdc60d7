"""``seccomp-shim probe`` tells the kernel's state to root and users; in a container, doubts."""

import json

from vm.inside.cell import ORDINARY_USER, Cell, Outcome
from vm.inside.container import default_profile, unprobed


def run(cell: Cell) -> Outcome:
    """Ask it as root, as an ordinary user, and inside a container under Docker's profile."""
    command = cell.shim("probe", "--fresh", "--json")
    root, user = cell.run(command), cell.run(command, ORDINARY_USER)
    inside = unprobed(cell, "runc", default_profile(), *command)
    states = [_state(text) for text in (root.stdout, user.stdout, inside.output)]
    outcome = Outcome(f"{states[0]}, {states[1]}, {states[2]}")
    outcome.expect(states[0] == cell.state, f"as root {states[0]}: {root.stderr[-300:]}")
    outcome.expect(states[1] == cell.state, f"as a user {states[1]}: {user.stderr[-300:]}")
    # A filter that denies 335 cannot be told from a kernel that lacks it; one that is exempt can.
    allowed = {"exempt", "unknown"} if cell.state == "exempt" else {"unknown"}
    return outcome.expect(states[2] in allowed, f"inside {states[2]}: {inside.errors[-300:]}")


def _state(text: str) -> str:
    try:
        return str(json.loads(text)["syscalls"]["uretprobe"]["state"])
    except (ValueError, KeyError, TypeError):
        return "no answer"
