"""Every kind of exec does what it does without the wrapper, but for what the manual names."""

from collections.abc import Iterator
from itertools import product

import pytest
from _pytest.mark.structures import ParameterSet

from behaviour.differences import Row, difference, documented, undocumented
from behaviour.execs import EXECS, Exec, ident_of, make, observe, unmake
from behaviour.lab import RUNTIMES, SETTINGS, TRIES, Lab
from behaviour.starts import filtered
from support import need

AROUND = list(product(RUNTIMES, SETTINGS))


def cells() -> list[ParameterSet]:
    """Return the parameters of the test; one of each kind is in the ordinary suite."""
    found = []
    for number, kind in enumerate(EXECS):
        for at, (runtime, setting) in enumerate(AROUND):
            marks = () if at == number * 3 % len(AROUND) else pytest.mark.sweep
            name = f"{kind.name}-{runtime}-{setting}"
            found.append(pytest.param(kind, runtime, setting, id=name, marks=marks))
    return found


class Joined:
    """The containers that are joined, each made when it is first asked for."""

    def __init__(self, runtimes: dict[str, dict[str, Lab]]) -> None:
        self.runtimes = runtimes
        self.made: dict[tuple[str, str, str], str | None] = {}

    def seen(self, kind: Exec, runtime: str, setting: str) -> dict[str, str] | None:
        """Return what is seen of ``kind``; None where there can be no such container."""
        key = runtime, setting, kind.into
        lab = self.runtimes[runtime][setting]
        if key not in self.made:
            self.made[key] = make(lab, kind.into, ident_of(lab, kind.into))
        ident = self.made[key]
        return observe(kind, lab, ident) if ident else None

    def end(self) -> None:
        """Delete all of them."""
        for (runtime, setting, into), ident in self.made.items():
            if ident:
                unmake(self.runtimes[runtime][setting], into, ident)


@pytest.fixture(scope="module")
def joined(runtimes: dict[str, dict[str, Lab]]) -> Iterator[Joined]:
    """Yield the containers."""
    found = Joined(runtimes)
    try:
        yield found
    finally:
        found.end()


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Return the differences that the manual names."""
    return documented()


@pytest.mark.parametrize(("kind", "runtime", "setting"), cells())
def test_an_exec_is_as_without_the_wrapper(
    joined: Joined, rows: list[Row], kind: Exec, runtime: str, setting: str
) -> None:
    """Exit status, output, the container's state, and no alarm in the log."""
    looks: list[dict[str, str]] = []
    found: dict[str, str] = {}
    for _ in range(TRIES):  # a runtime may do one thing now and another then
        before = joined.seen(kind, runtime, "bare")
        need.kernel(before is not None, f"{runtime} cannot pause a container here")
        after = joined.seen(kind, runtime, setting)
        assert before is not None
        assert after is not None
        looks.append(before)
        name = f"exec-{kind.name}"
        found = undocumented(difference(looks, after), rows, name, runtime, setting)
        if not found:
            break
    text = "\n".join(f"{aspect}:\n    {how}" for aspect, how in found.items())
    if found:
        pytest.fail(f"docs/runtime-wrapper.md does not name this:\n{text}", pytrace=False)
    if setting != "pass-through" and runtime == "runc" and filtered(looks[0]):
        assert joined.runtimes[runtime][setting].events("adjusted")


def test_kinds_are_many_and_have_names_of_their_own() -> None:
    """A name stands for one kind, or the table could not tell them apart."""
    names = [kind.name for kind in EXECS]
    assert len(names) == len(set(names)) >= 30


def test_without_the_wrapper_the_output_is_there(joined: Joined) -> None:
    """The control: what is compared is not the same for being empty."""
    for runtime in RUNTIMES:
        seen = joined.seen(EXECS[0], runtime, "bare")
        assert seen
        assert "Seccomp:\t2" in seen["exec.stdout"]
        assert seen["state.status"] == '"running"'
