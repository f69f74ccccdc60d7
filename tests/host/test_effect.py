"""What a call's name in a profile does under the runtimes of a host."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim import catalog
from shim.cli.runtime_option import loader
from shim.host import effect
from shim.profile.model import loaded
from support import need

CALLS = catalog.load()
URETPROBE = [CALLS["uretprobe"]]
RUNC, CRUN = "/usr/sbin/runc", "/usr/bin/crun"


def told(**libseccomp: str | None) -> effect.Effect:
    """Return what the name uretprobe does under runtimes with these libraries."""
    found = [{"path": path, "libseccomp": version} for path, version in libseccomp.items()]
    return effect.effects(URETPROBE, found, {})["uretprobe"]


@pytest.mark.parametrize(
    ("libraries", "word", "text"),
    [
        ({"runc": "2.6.1", "crun": "2.5.6"}, "all", ""),
        ({"runc": "2.5.4"}, "none", "no effect: runc (libseccomp 2.5.4) drops the name"),
        (
            {"runc": "2.5.4", "crun": "2.5.5"},
            "none",
            "no effect: runc (libseccomp 2.5.4) and crun (libseccomp 2.5.5) drop the name",
        ),
        (
            {"runc": "2.5.4", "crun": "2.6.1"},
            "some",
            "no effect under runc (libseccomp 2.5.4): dropped there",
        ),
        (
            {"runc": "2.5.4", "crun": None},
            "unknown",
            "no effect under runc (libseccomp 2.5.4): dropped there",
        ),
        ({"runc": None}, "unknown", ""),
        ({}, "unknown", ""),
    ],
)
def test_every_runtime_counts(libraries: dict[str, str | None], word: str, text: str) -> None:
    """All, some or none of the runtimes know the name, or nobody can tell; droppers are named."""
    assert (told(**libraries).word, told(**libraries).text) == (word, text)


def test_a_distributions_library_is_asked_itself() -> None:
    """What Debian's 2.5.4 has learnt counts for a runtime with that library, and for no other."""
    runtimes = [{"path": RUNC, "libseccomp": "2.5.4"}, {"path": CRUN, "libseccomp": "2.5.3"}]
    here = {"version": "2.5.4", "resolves": {"fchmodat2": True}}
    known = effect.effects([CALLS["fchmodat2"]], runtimes, here)["fchmodat2"]
    assert known.knows == (f"{RUNC} (libseccomp 2.5.4)",)
    assert known.drops == (f"{CRUN} (libseccomp 2.5.3)",)


@given(st.lists(st.sampled_from([None, "2.5.4", "2.5.6", "2.6.1"]), max_size=4))
def test_only_what_every_runtime_knows_is_called_all(libraries: list[str | None]) -> None:
    """No doubt and no dropper is ever left out; some and none are told from each other."""
    word = told(**{str(number): each for number, each in enumerate(libraries)}).word
    drops, knows = libraries.count("2.5.4"), len(set(libraries) & {"2.5.6", "2.6.1"})
    assert (word == "all") == bool(libraries and not drops and None not in libraries)
    assert (word == "none") == bool(libraries and drops == len(libraries))
    assert (word == "some") == bool(drops and knows)


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_the_word_is_what_the_runtime_here_does(name: str) -> None:
    """No effect is told exactly of the names that the model of the real runtime drops."""
    need.program(name)
    rules = [{"names": list(CALLS), "action": "SCMP_ACT_ALLOW"}]
    profile: dict[str, Any] = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    dropped = loaded(profile, loader(name)).dropped
    known = effect.effects_here(CALLS.values(), name)
    assert {each for each, what in known.items() if what.word == "none"} == set(dropped)
    assert {each for each, what in known.items() if what.word == "all"} == {*CALLS} - {*dropped}


def test_the_next_step_fits_the_call() -> None:
    """The wrapper helps with the kernel's own calls, a newer libseccomp with others."""
    calls = [CALLS["uretprobe"], CALLS["mseal"]]
    known = effect.effects(calls, [{"path": RUNC, "libseccomp": "2.5.4"}], {})
    wrapper, newer = effect.next_steps(calls, known)
    assert "seccomp-shim install ENGINE --default" in wrapper
    assert "mseal needs 2.5.6" in newer
    assert effect.next_steps(URETPROBE, {}) == []
