"""The cells of the matrix: all there are, and the few that a run of CI has time for."""

from collections.abc import Iterator

from vm import cases
from vm.kernels import KERNELS, Kernel
from vm.stacks import STACKS, Stack

Cell = tuple[Kernel, Stack, str]

# Asked of every kernel, in the sample too: is it one of the kind that the lab takes it for?
ALWAYS = ("probe",)
# The kernel of the machine that tests kills nobody either, and there these are tested at length: on
# kernels of the kind the sample leaves them to the whole matrix.
TESTED_HERE = ("containerd", "docker", "enosys", "podman", "prove", "sweep")


def every() -> list[Cell]:
    """Return every cell there is."""
    return [
        (kernel, stack, case)
        for kernel in KERNELS
        for stack in STACKS
        for case in cases.names()
        if runs(kernel, stack, case)
    ]


def sample() -> list[Cell]:
    """Return a covering sample, the same at each call.

    The affected kernel runs each case once, the user lands taking turns. The others share among
    themselves the cases that they have, each kernel with the user land of its own release; so
    every case that has a cell there, but for TESTED_HERE, is once on a kernel that kills nobody.
    """
    chosen = set(_rotated())
    return [cell for cell in every() if cell in chosen]


def _rotated() -> Iterator[Cell]:
    names = cases.names()
    others = [kernel for kernel in KERNELS if not kernel.ours]
    for kernel in KERNELS:
        if kernel.ours:
            yield from ((kernel, STACKS[i % len(STACKS)], case) for i, case in enumerate(names))
            continue
        (own,) = (stack for stack in STACKS if stack.release == kernel.suite)
        there = [case for case in names if runs(kernel, own, case) and not tested_here(case)]
        for case in {*there[others.index(kernel) :: len(others)], *ALWAYS}:
            yield kernel, own, case


def runs(kernel: Kernel, stack: Stack, case: str) -> bool:
    """Tell whether there is a cell of these three."""
    return cases.wanted(case, affected=kernel.ours, own_land=stack.release == kernel.suite)


def tested_here(case: str) -> bool:
    """Tell whether the tests of the machine itself try ``case``, on a kernel that kills nobody."""
    return case.partition("/")[0] in TESTED_HERE
