"""The mechanism ``name`` and runc's ENOSYS line: a name that would move it is not used."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim import catalog
from shim.bpf.equivalence import difference
from shim.catalog.table import numbers
from shim.host.runtimes import Runtime
from shim.profile.compile import name_of
from shim.profile.loosening import assess
from shim.profile.model import Loader, loaded, whole
from shim.start.spec import parse
from shim.start.wrapper.mechanism import change
from support import odd
from support.odd import ALL, OLD, X86_64, rule

CALLS = {"uretprobe": 335, "uprobe": 336}


def _mechanism(profile: dict[str, Any], program: str) -> tuple[str, dict[str, Any]]:
    """Return the mechanism, and what becomes of the profile."""
    text = json.dumps({"ociVersion": "1.0.2", "linux": {"seccomp": profile}})
    runtime = Runtime(f"/x/{program.split(maxsplit=1)[0]}", [], program, "2.6.1")
    made = change(parse(text), CALLS, runtime)
    return made.mechanism, json.loads(made.spec.proved())["linux"]["seccomp"]


@pytest.mark.parametrize(
    ("profile", "program", "mechanism"),
    [
        (odd.profile(rule(*OLD)), "runc 1.3.6", "filter-injection"),
        (odd.profile(rule(*OLD)), "runc 1.1.5", "filter-injection"),
        (odd.profile(rule(*OLD)), "crun 1.28", "name"),
        (odd.profile(rule(*OLD, "clone3")), "runc 1.3.6", "name"),
        (odd.profile(rule(*OLD), defaultErrnoRet=38), "runc 1.3.6", "name"),
    ],
)
def test_the_wrapper_injects_where_a_name_would_move_the_line(
    profile: dict[str, Any], program: str, mechanism: str
) -> None:
    """Only runc has a line, and a profile that names a later call has it beyond ours."""
    assert _mechanism(profile, program)[0] == mechanism


@given(
    st.lists(st.sampled_from(sorted(numbers()["x86_64"])), min_size=1, max_size=6),
    st.sampled_from((ALL, [X86_64], [])),
    st.sampled_from((Loader("runc", "1.1.5", "2.6.1"), Loader("runc", "1.3.6", "2.6.1"))),
)
@settings(max_examples=25)
def test_by_name_nothing_but_the_calls_differs(
    names: list[str], architectures: list[str], loader: Loader
) -> None:
    """Whatever the profile: under runc's model the rule allows our calls and changes no other."""
    before = odd.profile(rule(*names), architectures=architectures)
    mechanism, after = _mechanism(before, f"{loader.program} {loader.version}")
    if mechanism != "name":
        return
    found = difference(whole(loaded(before, loader)), whole(loaded(after, loader)))
    assessed = assess(found, catalog.load(), name_of, by_name=True)
    assert found.complete
    assert [each for each in assessed if not each.accepted] == []
