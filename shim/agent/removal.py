"""What install.sh must know before it removes the program.

``python -m shim.agent.removal QUESTION`` prints a line for each answer; where there is nothing to
tell, or it cannot be told, there is none.
"""

import contextlib
import sys
from collections.abc import Iterator

from shim.errors import ShimError


def running() -> Iterator[str]:
    """Yield the engines that have us in memory, or whose running containers were started by us."""
    from shim.engines.registration import this_host
    from shim.engines.service import status_or_problem

    host = this_host()
    return (
        name for name in ("docker", "containerd", "crio") if status_or_problem(name, host).in_use
    )


def users() -> Iterator[str]:
    """Yield the files by which users have Podman call us: they stay."""
    from shim.engines.podman.users import registered

    return (each.file for each in registered(0) if each.file)


def patched() -> Iterator[str]:
    """Yield the files that are as our last run has left them, and that was no rollback."""
    from shim.transaction import runs, store

    with store.opened(store.directory()) as state:
        runs.recover(state)
        last = {
            each.file: (run, each) for run in runs.listed(state) for each in run.entries.values()
        }
    for file, (run, entry) in sorted(last.items()):
        if run.kind != "rollback" and runs.looked_at(entry)[0] == "new":
            yield file


QUESTIONS = {"running": running, "users": users, "patched": patched}


if __name__ == "__main__":
    with contextlib.suppress(ShimError, OSError):
        for line in QUESTIONS[sys.argv[1]]():
            sys.stdout.write(f"{ascii(line)[1:-1]}\n")
