"""``seccomp-shim docker`` in front of docker: what passes through, and ``docker run``."""

import os
import sys
from pathlib import Path

from bench.timing import Case, interleaved
from support import engines, image

SHIM = str(Path(sys.executable).parent / "seccomp-shim")


def available() -> bool:
    """Tell whether there are a client, a daemon and the console script to measure."""
    return all(map(os.path.exists, (engines.DOCKER, engines.DOCKERD, SHIM)))


def measure(folder: Path, rounds: int) -> list[list[dict[str, object]]]:
    """Time ``docker ps``, then ``docker run``: two tables, docker alone the base of each."""
    with engines.dockerd() as docker:
        variables = [f"DOCKER_HOST=unix://{docker.socket}", f"DOCKER_CONFIG={folder}/client"]
        client = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *variables]
        run = ["run", "--rm", "--network", "none", image.NAME, "true"]
        return [_rows(client, words, rounds, folder) for words in (["ps"], run)]


def _rows(
    client: list[str], words: list[str], rounds: int, folder: Path
) -> list[dict[str, object]]:
    name = f"docker {words[0]}"
    cases = [
        Case(name, [*client, engines.DOCKER, *words]),
        Case(f"seccomp-shim {name}", [*client, SHIM, "docker", *words]),
    ]
    timed = interleaved(cases, rounds, folder)
    return [one.row(timed[0]) for one in timed]
