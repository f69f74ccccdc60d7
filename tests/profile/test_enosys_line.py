"""A profile that gets new names, under the model of each runtime: nothing else differs."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim import abi, catalog
from shim.bpf.equivalence import difference
from shim.catalog.table import numbers
from shim.data import directory
from shim.profile.compile import name_of
from shim.profile.docker import DEFAULT_CAPABILITIES, resolve
from shim.profile.docker_releases import builtin
from shim.profile.document import DOCKER, OCI, read
from shim.profile.edit import amended, plan
from shim.profile.enosys_line import IMPLIED, LISTED, NOBODY, preserve
from shim.profile.libseccomp import HERE, Names
from shim.profile.loosening import Assessed, assess
from shim.profile.model import Loader, loaded, whole
from support import odd
from support.odd import ALL, ERRNO, OLD, X86, X86_64, rule

CRUN = Loader("crun", "1.28", "2.6.1")
RUNCS = {LISTED: Loader("runc", "1.1.5", "2.6.1"), IMPLIED: Loader("runc", "1.3.6", "2.6.1")}
INJECTED = ("uretprobe", "uprobe")


def _patched(tree: dict[str, Any], line: str, names: Iterable[str]) -> tuple[dict[str, Any], str]:
    """Return the profile with ``names`` in it, and the reason of the first change."""
    known = catalog.load()
    document = read(json.dumps(tree).encode(), "p.json")
    edits, findings = plan(document, [known[name] for name in names], {}, "always", line=line)
    return amended(document.tree, edits), next((f.reason for f in findings if f.changed), "")


def _unwanted(before: dict[str, Any], after: dict[str, Any], loader: Loader) -> list[Assessed]:
    found = difference(whole(loaded(before, loader)), whole(loaded(after, loader)))
    assert found.complete
    assessed = assess(found, catalog.load(), name_of, by_name=True, also_on=("x32", "i386"))
    return [each for each in assessed if not each.accepted]


_names = st.lists(st.sampled_from(sorted(numbers()["x86_64"])), min_size=1, max_size=12)
_defaults = st.sampled_from((ERRNO, "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"))


@given(
    _names.map(lambda names: [*names, "getpid"]),
    st.sampled_from(([X86_64], [X86_64, "SCMP_ARCH_X32"])),
    _defaults,
    st.sampled_from((LISTED, IMPLIED)),
)
@settings(max_examples=20)
def test_under_runc_nothing_but_the_added_calls_differs(
    names: list[str], architectures: list[str], default: str, line: str
) -> None:
    """The native line stays where it was, whatever a profile names; else it is told."""
    before = odd.profile(rule(*names), default=default, architectures=architectures)
    after, _ = _patched(before, line, INJECTED)
    lost = preserve(before, OCI, INJECTED, line).lost
    unwanted = [each for each in _unwanted(before, after, RUNCS[line]) if each.name not in lost]
    assert unwanted == []


@given(_names, st.sampled_from((ALL, [X86_64], [X86], [])), _defaults)
@settings(max_examples=20)
def test_under_crun_nothing_but_the_added_calls_differs(
    names: list[str], architectures: list[str], default: str
) -> None:
    """Crun has no line, and a profile that is meant for it gets no more than the names."""
    before = odd.profile(rule(*names), default=default, architectures=architectures)
    after, _ = _patched(before, NOBODY, INJECTED)
    assert _unwanted(before, after, CRUN) == []


def _older(release: str, *names: str) -> dict[str, Any]:
    """Return a Docker default without its calls above 318, or those of ``names``, as years ago."""
    folder = directory("profiles") / "docker"
    base, versions = ((folder / name).read_text() for name in ("default.json", "versions.json"))
    tree, _ = builtin(release, base, versions)
    assert tree is not None
    new = {name for name, number in numbers()["x86_64"].items() if number > 318} - {*names}
    for each in tree["syscalls"]:
        each["names"] = [name for name in each["names"] if name not in new]
    return tree


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    flat = resolve(tree, capabilities=DEFAULT_CAPABILITIES, machine="x86_64", kernel=(6, 18))
    assert flat is not None
    return flat


@pytest.mark.parametrize("added", [INJECTED, ("fchmodat2",)])
@pytest.mark.parametrize("line", RUNCS)
def test_an_old_docker_profile_keeps_its_line(line: str, added: tuple[str, ...]) -> None:
    """On x86-64, so that glibc's fallbacks from statx, rseq and clone3 go on; others are told."""
    tree = _older("20.10.0")
    after, reason = _patched(tree, line, added)
    lost = preserve(tree, DOCKER, added, line).lost
    unwanted = _unwanted(_flat(tree), _flat(after), RUNCS[line])
    assert [each for each in unwanted if each.change.arch_name == "x86_64"] == []
    assert {each.name for each in unwanted} <= {*lost}
    plain, _ = _patched(tree, NOBODY, added)
    wrong = {each.name for each in _unwanted(_flat(tree), _flat(plain), RUNCS[line])}
    assert {"statx", "rseq"} <= wrong
    assert "get ENOSYS by name, as runc answers them: crun does then too" in reason
    assert all(
        each.change.after == abi.SECCOMP_RET_ERRNO | 38
        for each in _unwanted(_flat(tree), _flat(after), CRUN)
    )


@pytest.mark.parametrize("line", [NOBODY, IMPLIED])
@pytest.mark.parametrize("release", ["20.10.0", "25.0.3"])
def test_a_profile_that_names_later_calls_gets_the_names_alone(release: str, line: str) -> None:
    """Every default that Docker had since 20.10: no line moves."""
    folder = directory("profiles") / "docker"
    base, versions = ((folder / name).read_text() for name in ("default.json", "versions.json"))
    tree, _ = builtin(release, base, versions)
    assert tree is not None
    after, _ = _patched(tree, line, INJECTED)
    assert len(after["syscalls"]) - len(tree["syscalls"]) == 1
    assert _unwanted(_flat(tree), _flat(after), RUNCS.get(line, CRUN)) == []


def test_what_no_rule_can_keep_is_told() -> None:
    """A name that another rule has for some containers only stays as that rule has it."""
    tree = _older("20.10.0", "bpf")
    after, reason = _patched(tree, LISTED, INJECTED)
    assert "bpf" in preserve(tree, DOCKER, INJECTED).lost
    assert "changes between ENOSYS and the default action, in some containers" in reason
    unwanted = _unwanted(_flat(tree), _flat(after), RUNCS[LISTED])
    assert {each.name for each in unwanted if each.change.arch_name == "x86_64"} == {"bpf"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"defaultErrnoRet": 38}, IMPLIED),
        ({"defaultAction": "SCMP_ACT_ALLOW"}, IMPLIED),
        ({"architectures": []}, LISTED),
        ({"syscalls": [rule("read")], "architectures": [X86_64]}, IMPLIED),
        ({"syscalls": [rule(*OLD, "clone3")]}, IMPLIED),
    ],
)
def test_where_no_line_moves_nothing_is_kept(changes: dict[str, Any], line: str) -> None:
    """The default is ENOSYS or allows, there was no line, or it is further up."""
    assert preserve(odd.profile(rule(*OLD)) | changes, OCI, INJECTED, line) == ((), ())


def test_the_tables_are_libseccomps() -> None:
    """Each number here is the one that the library has for it, where it knows the name."""
    tokens = {"x86_64": abi.AUDIT_ARCH_X86_64, "i386": abi.AUDIT_ARCH_I386, "x32": 0x4000003E}
    names = Names(HERE)
    for key, token in tokens.items():
        table = numbers()[key]
        bit = abi.X32_SYSCALL_BIT if key == "x32" else 0
        for name, number in table.items():
            here = names.number(name, token)
            # sockets and System V's ipc are one call each on i386, and numbers of their own
            assert here is None or here == number | bit, (key, name)
