"""Podman, as root and as a user: start, ``exec`` and ``exec -it`` in it, restart, each probed.

The control is without us; ``runtime`` is the wrapper in the runtime's place, ``hooks`` are entries
of a hooks directory, which the processes that runc execs do not see.
"""

from vm.inside.cell import Cell, Outcome
from vm.inside.engines import Podman
from vm.inside.visits import WAYS, visit

VARIANTS = (
    "control-root-runc",
    "control-root-crun",
    "control-user-runc",
    "control-user-crun",
    "runtime-root-runc",
    "runtime-root-crun",
    "runtime-user-runc",
    "runtime-user-crun",
    "hooks-root-runc",
    "hooks-user-crun",
)
REDUCED = ("runtime-user-crun",)


def run(cell: Cell, variant: str) -> Outcome:
    """Install for Podman, and visit a container."""
    way, user, runtime = variant.split("-")
    engine = Podman(cell, runtime, rootless=user == "user")
    if way != "control":
        cell.install("podman", "--way", way)
    ways = {"control": WAYS[:2], "runtime": WAYS, "hooks": ("start", "restart")}[way]
    with engine:
        return visit(engine, lives=way != "control" or not cell.kills, ways=ways)
