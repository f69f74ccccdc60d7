"""What a pod can be for: one step at a time, each of which may be repeated."""

import sys
from collections.abc import Iterable
from typing import Protocol


def say(lines: Iterable[str]) -> None:
    """Put lines into the pod's log."""
    sys.stdout.writelines(f"seccomp-shim: {line}\n" for line in lines)
    sys.stdout.flush()


class Job(Protocol):
    """One way to look after a node.

    ``step`` brings the node on, and gives a line for each thing that is still missing; it is called
    every ``pause`` seconds. ``roll_back`` undoes it all, and gives a line for each thing that had
    to be left. Both raise ShimError or OSError. ``log`` is the node's audit log as the pod sees it.
    """

    pause: float

    @property
    def log(self) -> str: ...  # noqa: D102
    def step(self) -> list[str]: ...  # noqa: D102
    def roll_back(self) -> list[str]: ...  # noqa: D102
