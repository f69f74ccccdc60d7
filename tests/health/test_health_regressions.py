"""What counts as worse between two looks at a host."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shim.health.calls import expected
from shim.health.regressions import regressions

PROFILE = "/etc/docker/seccomp.json"
VERDICTS = ("ALLOW", "LOG", "ERRNO(1)", "KILL_PROCESS")
CALLS = ("uretprobe", "uprobe")

engines = st.lists(
    st.fixed_dictionaries(
        {
            "engine": st.sampled_from(("docker", "podman", "containerd")),
            "answers": st.booleans(),
            "said": st.text(),
        }
    ),
    unique_by=lambda each: each["engine"],
)
calls = st.dictionaries(
    st.sampled_from(CALLS), st.sampled_from(VERDICTS).map(lambda v: {"verdict": v, "expected": v})
)
containers = st.lists(
    st.fixed_dictionaries(
        {
            "how": st.sampled_from(("/usr/sbin/runc", "docker")),
            "profile": st.sampled_from(("", PROFILE)),
            "started": st.booleans(),
            "reason": st.text(),
            "calls": calls,
        }
    ),
    unique_by=lambda each: (each["how"], each["profile"]),
)
looks = st.fixed_dictionaries(
    {"engines": engines, "containers": containers, "not_tried": st.integers(0, 3)}
)


def _look(*, answers: bool = True, started: bool = True, verdict: str = "ALLOW") -> dict[str, Any]:
    container = {
        "how": "/usr/sbin/runc",
        "profile": PROFILE,
        "started": started,
        "reason": "" if started else "no such call",
        "calls": {"uretprobe": {"verdict": verdict, "expected": "ALLOW"}} if started else {},
    }
    engine = {"engine": "docker", "answers": answers, "said": "20.10" if answers else "it hangs"}
    return {"engines": [engine], "containers": [container], "not_tried": 0}


def test_each_way_of_getting_worse_is_a_line() -> None:
    """An engine that fell silent, a container that fails now, a verdict that is a wrong one."""
    good = _look()
    assert regressions(good, good) == []
    assert regressions(good, _look(answers=False)) == ["docker: does not answer any more: it hangs"]
    assert regressions(good, _look(started=False)) == [
        f"/usr/sbin/runc: no container starts under {PROFILE} any more: no such call"
    ]
    assert regressions(good, _look(verdict="ERRNO(1)")) == [
        f"/usr/sbin/runc: a container under {PROFILE} has ERRNO(1) for uretprobe, not ALLOW"
    ]
    gone = {**good, "engines": []}
    assert regressions(good, gone) == ["docker: does not answer any more: it is not there"]
    default = copy.deepcopy(_look(started=False))
    default["containers"][0].update(how="docker", profile="")
    before = copy.deepcopy(good)
    before["containers"][0].update(how="docker", profile="")
    assert regressions(before, default) == ["docker: no container starts any more: no such call"]


@given(looks)
def test_a_host_that_stays_as_it_is_has_no_regression(look: dict[str, Any]) -> None:
    """Whatever was broken before is no regression."""
    assert regressions(look, look) == []


@given(looks, looks)
def test_what_was_broken_or_is_not_looked_at_again_is_no_regression(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    """No line is about an engine that did not answer before, or a container that did not start."""
    silent = {each["engine"] for each in before["engines"] if not each["answers"]}
    started = {(each["how"], each["profile"]) for each in before["containers"] if each["started"]}
    now = [each for each in after["containers"] if not each["started"]]
    lines = regressions(before, after)
    assert not [line for line in lines if line.partition(":")[0] in silent and "answer" in line]
    stopped = [each for each in now if (each["how"], each["profile"]) in started]
    assert sum("no container starts" in line for line in lines) == len(stopped)
    assert regressions(before, {**after, "containers": []}) == [
        line for line in lines if "does not answer any more" in line
    ]


verdicts = st.fixed_dictionaries({name: st.sampled_from(VERDICTS) for name in CALLS})
names = st.frozensets(st.sampled_from(CALLS))


@given(verdicts, verdicts, names, names)
def test_a_call_is_let_through_or_answered_as_before(
    now: dict[str, str], was: dict[str, str], allowed: frozenset[str], free: frozenset[str]
) -> None:
    """An allowed call is to be let through, another one as before; letting through is never bad."""
    wanted = expected(now, was, allowed=allowed, free=free)
    assert wanted.keys() == now.keys()
    for name, verdict in now.items():
        if verdict in ("ALLOW", "LOG"):
            assert wanted[name] == verdict
        elif name in allowed:
            assert wanted[name] == "ALLOW"
        else:
            assert wanted[name] == ("" if name in free else was[name])
