"""containerd, by ctr and its CRI service: start, exec, start again, each with a uretprobe.

The control is without us, with ``runtime`` the wrapper is the BinaryName that ctr asks for, where
it execs at a terminal, too. ``pods`` are those of the CRI service, with the handler's name, as
Kubernetes has them with a RuntimeClass.
"""

from vm.inside.cell import BIN, Cell, Outcome
from vm.inside.engines import Containerd, Pods
from vm.inside.visits import WAYS, visit

VARIANTS = (
    "control-runc",
    "control-crun",
    "runtime-runc",
    "runtime-crun",
    "control-pods",
    "runtime-pods",
)
REDUCED = ("runtime-runc",)


def run(cell: Cell, variant: str) -> Outcome:
    """Start a containerd, and visit a container."""
    way, what = variant.split("-")
    ours = way == "runtime"
    ways: tuple[str, ...] = WAYS if ours else WAYS[:2]
    if what == "pods":
        engine: Containerd = Pods(cell, "seccomp-shim" if ours else "")
        if ours:
            cell.install("containerd", "--config", f"{engine.inside}/config.toml")
        ways = tuple(each for each in ways if each != "exec -it")
    else:
        cell.install()
        binary = f"{BIN}/seccomp-shim-{what}" if ours else f"/usr/bin/{what}"
        engine = Containerd(cell, "--runc-binary", binary)
    with engine:
        return visit(engine, lives=ours or not cell.kills, ways=ways)
