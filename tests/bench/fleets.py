"""What the collection and the verbs of ``fleet`` cost a host, over the floor of a bare ping.

The floor is ``ansible -m ping`` on the same hosts with the same forks. Every name of the inventory
has a profile of its own; many names stand for the same few hosts.

``PYTHONPATH=tests .venv/bin/python -m bench.fleets --help``
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from support import hosts, managed
from support.checkout import CHECKOUT
from support.operator import Operator, Said

_PROFILE = CHECKOUT / "profiles/docker/default.json"

# What is run, in this order in every round; the first is the floor.
_TASKS: dict[str, Sequence[str]] = {
    "ping": ("-m", "ping"),
    "facts": ("-m", "seccomp_shim.host.seccomp_shim_facts"),
    "facts, no profiles": ("-m", "seccomp_shim.host.seccomp_shim_facts", "-a", "profiles=false"),
    "patch": ("-m", "seccomp_shim.host.seccomp_shim_profile", "-a", "path={path} when=always"),
    "patch again": (
        *("-m", "seccomp_shim.host.seccomp_shim_profile"),
        *("-a", "path={path} when=always"),
    ),
    "roll back": (
        *("-m", "seccomp_shim.host.seccomp_shim_profile"),
        *("-a", "path={path} state=rolled_back"),
    ),
}
# Likewise, of the verb; each leaves to the next one what it needs.
_VERBS: dict[str, Sequence[str]] = {
    "fleet facts": ("facts",),
    "fleet plan": ("plan", "--when", "always"),
    "fleet apply": ("apply", "--yes", "--no-verify", "--serial", "100%"),
    "fleet rollback": ("rollback", "--yes", "--no-verify"),
}
# With --verify: containers are started before and after.
_VERIFYING: dict[str, Sequence[str]] = {
    "fleet apply, verified": ("apply", "--yes", "--serial", "100%"),
    "fleet rollback, again": ("rollback", "--yes", "--no-verify"),
}
_PATH = "/srv/profiles/{{inventory_hostname}}.json"


def main(argv: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.fleets", description=__doc__)
    parser.add_argument("--names", type=int, default=24, help="names in the inventory (24)")
    parser.add_argument("--hosts", type=int, default=4, help="sshds behind them (4)")
    parser.add_argument("--forks", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--verbs", action="store_true", help="of the tasks only ping, the floor")
    parser.add_argument("--verify", action="store_true", help="measure verified changes, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="seccomp-shim-bench-") as name:
        taken, first = measure(Path(name), args)
    floor = statistics.median(taken["ping"])
    figures = {task: statistics.median(each) for task, each in taken.items()}
    print(f"{args.names} names on {args.hosts} hosts, {args.forks} forks, {args.rounds} rounds")
    for task, median in figures.items():
        spread = f"{min(taken[task]):.2f}-{max(taken[task]):.2f} s"
        each = 1000 * median / args.names
        print(f"{task:20} {median:6.2f} s ({spread}) {each:6.0f} ms a host {median / floor:5.2f}x")
    print(f"{'facts, first time':20} {first:6.2f} s, the payload goes to {args.hosts} hosts")
    if args.json:
        args.json.write_text(json.dumps({**vars(args), "json": None, "seconds": taken}) + "\n")
    return 0


def measure(folder: Path, args: argparse.Namespace) -> tuple[dict[str, list[float]], float]:
    """Return the seconds of each task in each round, and of the first task of all."""
    names = [f"n{number}" for number in range(args.names)]
    with hosts.fleet(folder, [f"h{number}" for number in range(args.hosts)]) as fleet:
        inventory = fleet.inventory(folder / "hosts.json", names=names)
        _name_profiles(inventory)
        for host in fleet.values():
            for name in names:
                host.write(f"/srv/profiles/{name}.json", _PROFILE.read_bytes())
        _seconds(inventory, args.forks, _TASKS["ping"])  # connections are there from now on
        first = _seconds(inventory, args.forks, _TASKS["facts"])
        tasks = {"ping": _TASKS["ping"]} if args.verbs else _TASKS
        verbs = {**_VERBS, **(_VERIFYING if args.verify else {})}
        taken: dict[str, list[float]] = {task: [] for task in (*tasks, *verbs)}
        operator = Operator(inventory, folder / "state")
        for _ in range(args.rounds):
            for task, words in tasks.items():
                taken[task].append(_seconds(inventory, args.forks, words))
            for verb, words in verbs.items():
                begin = time.monotonic()
                said = operator(*words, "--forks", str(args.forks))
                taken[verb].append(time.monotonic() - begin)
                _expect(said, verb, len(names))
    return taken, first


def _name_profiles(inventory: Path) -> None:
    """Have the inventory name the profile of each of its hosts."""
    document = json.loads(inventory.read_text())
    for name, variables in document["all"]["hosts"].items():
        variables["seccomp_shim_extra_paths"] = [f"/srv/profiles/{name}.json"]
    inventory.write_text(json.dumps(document))


def _expect(said: Said, verb: str, count: int) -> None:
    """Give up where not all hosts have done the work that is measured."""
    results = {
        "facts": "asked",
        "plan": "would change",
        "apply": "changed",
        "rollback": "rolled back",
    }
    wanted = results[verb.split()[1].rstrip(",")]
    done = list(said.results().values())
    if done != [wanted] * count:
        raise SystemExit(f"bench.fleets: {verb}: {said.text}")


def _seconds(inventory: Path, forks: int, words: Sequence[str]) -> float:
    filled = [word.replace("{path}", _PATH) for word in words]
    command = [str(managed.BIN / "ansible"), "-i", str(inventory), "all", "-b", "-f", str(forks)]
    begin = time.monotonic()
    done = subprocess.run(
        [*command, *filled],
        cwd=managed.EXAMPLE,
        env=managed.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    taken = time.monotonic() - begin
    if done.returncode != 0:
        raise SystemExit(f"bench.fleets: {filled}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return taken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
