"""Docker by each way in: start, ``exec``, ``exec -it``, restart, each with a uretprobe.

The control is without us; ``registered`` names the runtime, for ``default`` it is the daemon's;
``command-line`` is ``seccomp-shim docker``, ``compose`` starts a service that names the runtime,
``sdk`` a container from Python. All share one daemon, which learns of us on the way.
"""

from vm.inside.cell import Cell, Outcome
from vm.inside.engines import Docker, DockerCommandLine, DockerCompose, DockerSdk
from vm.inside.visits import WAYS, visit

VARIANTS = ("control", "registered", "command-line", "compose", "sdk", "default")
REDUCED = ("registered",)
ENGINES = {"command-line": DockerCommandLine, "compose": DockerCompose, "sdk": DockerSdk}
# What leads to the same runtime of the same daemon need not be asked everything again.
FEWER = {"control": WAYS[:2], "compose": ("start", "exec", "restart"), "sdk": ("start", "restart")}
OPTIONS = {"registered": ["--runtime", "seccomp-shim"], "compose": ["runtime=seccomp-shim"]}


def run(cell: Cell, way: str) -> Outcome:
    """Visit a container of a daemon that has us registered, but for the control."""
    engine = ENGINES.get(way, Docker)(cell)
    if way != "control":
        cell.install("docker", *(["--default"] if way == "default" else []))
    lives = way != "control" or not cell.kills
    return visit(engine, OPTIONS.get(way, []), lives=lives, ways=FEWER.get(way, WAYS))
