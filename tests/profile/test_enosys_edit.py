"""Calls that a profile has never heard of get ENOSYS: nothing else differs, nothing is allowed."""

import json
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim import abi, catalog
from shim.bpf.equivalence import difference
from shim.catalog.table import numbers
from shim.errors import ShimError
from shim.profile.compile import name_of
from shim.profile.docker import DEFAULT_CAPABILITIES, resolve
from shim.profile.document import DOCKER, Document, read
from shim.profile.edit import amended, plan
from shim.profile.enosys_edit import UNNAMED, checked, free
from shim.profile.enosys_line import IMPLIED, LISTED, NOBODY
from shim.profile.loosening import Assessed, assess
from shim.profile.model import Loader, loaded, whole
from shim.profile.unlisted_calls import unnamed
from support import odd
from support.modelled import docker
from support.odd import ALL, ERRNO, OLD, X86_64, rule

CRUN = Loader("crun", "1.28", "2.6.1")
OLD_CRUN = Loader("crun", "1.8.1", "2.5.4")
LOADERS = {
    NOBODY: (CRUN, OLD_CRUN),
    LISTED: (Loader("runc", "1.1.5", "2.5.4"), Loader("runc", "1.1.5", "2.6.1")),
    IMPLIED: (Loader("runc", "1.3.6", "2.6.1"),),
}
ADMIN = {*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}


def _document(tree: dict[str, Any]) -> Document:
    return read(json.dumps(tree).encode(), "p.json")


def _patched(tree: dict[str, Any], line: str, *words: str) -> tuple[dict[str, Any], list[str]]:
    """Return the profile with ENOSYS for what ``words`` mean, and the calls that get it."""
    document = _document(tree)
    edits, findings = plan(document, [], {}, line=line, enosys=words)
    names = [each.syscall for each in findings if each.verdict == UNNAMED]
    return amended(document.tree, edits), names


def _differences(
    before: dict[str, Any], after: dict[str, Any], loader: Loader, names: Collection[str]
) -> list[Assessed]:
    found = difference(whole(loaded(before, loader)), whole(loaded(after, loader)))
    assert found.complete
    return assess(found, catalog.load(), name_of, by_name=True, unnamed=names)


def _only_refusals(
    before: dict[str, Any], after: dict[str, Any], line: str, unheard: frozenset[str]
) -> None:
    """See that every difference is EPERM that became ENOSYS, of a call that no rule names."""
    for loader in LOADERS[line]:
        for each in _differences(before, after, loader, unheard):
            assert each.accepted, (loader, each.name, str(each.change))
            assert each.change.after != abi.SECCOMP_RET_ALLOW


_names = st.lists(
    st.sampled_from(sorted({*numbers()["x86_64"]} - {"sendmmsg", "getpid"})),
    max_size=9,
    unique=True,
)
_actions = st.sampled_from(("SCMP_ACT_ALLOW", ERRNO, "SCMP_ACT_KILL", "SCMP_ACT_LOG"))
_rules = st.builds(
    lambda names, one, other: [rule(*names[:4], action=one), rule(*names[4:], action=other)],
    *(_names, _actions, _actions),
)


@given(
    _rules,
    st.sampled_from((ALL, [X86_64], [])),
    st.sampled_from(tuple(LOADERS)),
    st.sampled_from(("newer", "unnamed", "clone3")),
)
@settings(max_examples=8, deadline=None)
def test_no_call_but_those_that_no_rule_names_is_answered_otherwise(
    rules: list[dict[str, Any]], architectures: list[str], line: str, word: str
) -> None:
    """Whatever the profile, under the model of runc and of crun; named denials stay as they are.

    A single name can move runc's line, which is told as for one that is allowed.
    """
    line = NOBODY if word == "clone3" else line
    # All that i386 has as one call of many, socketcall and ipc, is older than this one.
    before = odd.profile(rule("sendmmsg", "getpid"), *rules, architectures=architectures)
    after, _ = _patched(before, line, word)
    _only_refusals(before, after, line, free(_document(before)))


@pytest.mark.parametrize(
    ("release", "line", "capabilities"),
    [
        ("20.10.0", NOBODY, DEFAULT_CAPABILITIES),
        ("20.10.0", LISTED, ADMIN),
        ("25.0.3", LISTED, DEFAULT_CAPABILITIES),
        ("28.2.0", IMPLIED, ADMIN),
    ],
)
def test_dockers_own_profiles(release: str, line: str, capabilities: set[str]) -> None:
    """In a container with and without capabilities that rules ask for, whose calls stay theirs."""
    tree = docker(release)
    after, names = _patched(tree, line, "unnamed")
    assert names
    flat = [
        resolve(each, capabilities=capabilities, machine="x86_64", kernel=(6, 18))
        for each in (tree, after)
    ]
    assert flat[0] is not None
    assert flat[1] is not None
    _only_refusals(flat[0], flat[1], line, free(_document(tree)))
    [most, *_] = LOADERS[line]
    got = {each.name for each in _differences(flat[0], flat[1], most, names)}
    # runc answers what is above its line with ENOSYS as it is.
    assert got == set(names) if line == NOBODY else got <= set(names)


def test_the_epoch_is_the_newest_call_that_a_rule_names() -> None:
    """In any spelling, under any condition; what is passed over is older, and not ``newer``."""
    tree = docker("20.10.0")
    free, epoch = unnamed(tree, DOCKER.names_of)
    assert epoch == ("faccessat2", 439)
    assert {"clone3", "close_range", "openat2", "faccessat2"} & set(free) == {
        "clone3",
        "close_range",
    }
    _, newer = _patched(tree, NOBODY, "newer")
    assert "clone3" not in newer
    assert newer[0] == "process_madvise"
    assert "uretprobe" not in free
    older = odd.profile(rule(*OLD, "getrandom"))
    assert list(unnamed(older)[0])[:3] == ["memfd_create", "kexec_file_load", "bpf"]
    assert unnamed(odd.profile(rule(*OLD, "sys_clone3", action=ERRNO)))[1] == ("clone3", 435)
    assert unnamed(odd.profile(rule(*OLD, "435", action=ERRNO)))[1] == ("clone3", 435)


@pytest.mark.parametrize(
    "profile",
    [
        odd.profile(rule(*OLD), default="SCMP_ACT_KILL"),
        odd.profile(rule(*OLD), default="SCMP_ACT_ALLOW"),
        odd.profile(rule(*OLD), defaultErrnoRet=38),
        odd.profile(rule(*OLD), defaultErrnoRet=13),
        odd.profile(),
    ],
)
def test_what_is_not_refused_by_eperm_is_left(profile: dict[str, Any]) -> None:
    """Another default is its author's word on these calls, too; and so is a profile of nothing."""
    after, names = _patched(profile, NOBODY, "unnamed", "newer")
    assert (after, names) == (profile, [])


def test_a_call_that_a_rule_names_is_left() -> None:
    """Also where it is asked for by name, and where the rule does what the default does."""
    profile = odd.profile(rule(*OLD, "faccessat2"), rule("clone3", action=ERRNO, errnoRet=1))
    document = _document(profile)
    edits, findings = plan(document, [], {}, line=NOBODY, enosys=("clone3", "close_range"))
    assert [(each.syscall, each.changed) for each in findings] == [
        ("close_range", True),
        ("clone3", False),
    ]
    assert [edit.syscalls for edit in edits] == [("close_range",)]


def test_words_that_cannot_be_meant_are_refused() -> None:
    """A call that kernels inject dies of ENOSYS; a name that no kernel has is a mistake."""
    for word in ("uretprobe", "closerange"):
        with pytest.raises(ShimError, match=word):
            checked([word])
    assert checked(["newer", "statx", "newer"]) == ("newer", "statx")
