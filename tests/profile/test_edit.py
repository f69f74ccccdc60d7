"""The smallest edit, and the reasons for leaving a profile alone."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.catalog import Syscall
from shim.profile.document import Document, read
from shim.profile.edit import Finding, TreeEdit, amended, plan
from support.profiles import ALLOW, CONFIG, DOCKER, ERRNO, FORMATS, OCI, changed, ruled, trees

URETPROBE = Syscall("uretprobe", {"x86_64": 335}, "kernel-injected", "2.5.6")
UPROBE = Syscall("uprobe", {"x86_64": 336}, "kernel-injected", "2.6.1")
MSEAL = Syscall("mseal", {"x86_64": 462}, "program", "2.5.6")
RULE = {"names": ["uretprobe", "uprobe"], "action": ALLOW}
DOCKER_RULE = {
    **RULE,
    "comment": "Added by seccomp-shim: newer than this profile",
    "includes": {"arches": ["amd64"]},
}


def document(tree: dict[str, Any]) -> Document:
    """Read ``tree`` as a file would be."""
    return read(json.dumps(tree).encode(), "p.json")


def planned(
    tree: dict[str, Any],
    calls: Sequence[Syscall] = (URETPROBE,),
    states: dict[str, str] | None = None,
    when: str = "always",
    override_deny: bool = False,
) -> tuple[dict[str, Any], list[TreeEdit], list[Finding]]:
    """Plan for ``tree``; give it as amended, the edits and the findings."""
    edits, findings = plan(document(tree), calls, states or {}, when, override_deny)
    return amended(tree, edits), edits, findings


@pytest.mark.parametrize(
    ("name", "pointer", "rule"),
    [
        ("docker", "/syscalls/0", DOCKER_RULE),
        ("oci", "/syscalls/0", RULE),
        ("config.json", "/linux/seccomp/syscalls/0", RULE),
    ],
)
def test_one_rule_for_all(name: str, pointer: str, rule: dict[str, Any]) -> None:
    """All missing calls come in one rule, bound to x86-64 where the format can say so."""
    tree, edits, findings = planned(FORMATS[name], (URETPROBE, UPROBE))
    assert [(edit.op, edit.pointer, edit.value) for edit in edits] == [("add", pointer, rule)]
    assert edits[0].syscalls == ("uretprobe", "uprobe")
    assert [finding.changed for finding in findings] == [True, True]
    expected = [rule, *(FORMATS[name] if name != "config.json" else OCI)["syscalls"]]
    assert tree == changed(FORMATS[name], pointer.removesuffix("/0"), expected)


@pytest.mark.parametrize("syscalls", [[], None])
def test_no_rules_yet(syscalls: object) -> None:
    """A profile without rules gets its first."""
    tree, _, _ = planned({"defaultAction": ERRNO, "syscalls": syscalls})
    assert tree["syscalls"] == [{"names": ["uretprobe"], "action": ALLOW}]
    assert planned({"defaultAction": ERRNO})[0] == tree


@pytest.mark.parametrize(
    ("tree", "verdict"),
    [
        (ruled(defaultAction=ALLOW), "default-allows"),
        (ruled({"action": ALLOW}), "allows"),
        (ruled({"action": ERRNO}), "explicit-deny"),
        (ruled(defaultAction="SCMP_ACT_NOTIFY"), "supervised"),
        ({}, "unconfined"),
        ({"ociVersion": "1.0.2"}, "unconfined"),
        ({"linux": {"seccomp": None}}, "unconfined"),
        ({"linux": {"seccomp": {}}}, "unconfined"),
    ],
)
def test_left_alone(tree: dict[str, Any], verdict: str) -> None:
    """What needs no rule, or must not have one, is left alone and the verdict told."""
    _, edits, [finding] = planned(tree)
    assert edits == []
    assert finding.verdict == verdict
    assert not finding.changed
    assert finding.reason


@pytest.mark.parametrize("limits", [{"caps": ["CAP_BPF"]}, {"minKernel": "6.11"}])
def test_allowed_to_some(limits: dict[str, Any]) -> None:
    """A rule for some containers only is no reason to leave the others without."""
    _, edits, [finding] = planned(ruled({"action": ALLOW, "includes": limits}))
    assert finding.verdict == "conditional"
    assert finding.changed
    assert len(edits) == 1


def test_allowed_for_some_arguments() -> None:
    """What is allowed with certain arguments is denied with all others, unless overruled."""
    args = [{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}]
    tree = ruled({"action": ALLOW, "args": args})
    _, edits, [finding] = planned(tree)
    assert (edits, finding.verdict, finding.changed) == ([], "conditional", False)
    assert "--override-deny" in finding.reason
    after, _, [finding] = planned(tree, override_deny=True)
    assert after["syscalls"][0] == {"names": ["uretprobe"], "action": ALLOW}
    assert finding.changed


@pytest.mark.parametrize(
    ("when", "state", "added"),
    [
        ("present", "filtered", True),
        ("present", "exempt", True),
        ("present", "absent", False),
        ("present", "unknown", False),
        ("needed", "filtered", True),
        ("needed", "exempt", False),
        ("needed", "absent", False),
        ("needed", "unknown", False),
        ("always", "absent", True),
        ("always", "unknown", True),
    ],
)
def test_when(when: str, state: str, added: bool) -> None:
    """The kernel's state decides, and doubt adds nothing; a program's call is added regardless."""
    states = {"uretprobe": state}
    _, edits, [first, second] = planned(OCI, (URETPROBE, MSEAL), states, when)
    assert first.changed is added
    assert second.changed
    assert [edit.syscalls for edit in edits] == [("uretprobe", "mseal") if added else ("mseal",)]


def test_unknown_tells_the_way_out() -> None:
    """Where the kernel could not be asked, the reason names the option that does not ask."""
    _, _, [finding] = planned(OCI, when="present")
    assert "--when always" in finding.reason


def test_absent_keeps_a_deny() -> None:
    """A deny is not overruled for a call that the kernel here does not have."""
    tree, edits, [finding] = planned(
        ruled({"action": ERRNO}), (URETPROBE,), {"uretprobe": "absent"}, "present", True
    )
    assert edits == []
    assert tree == ruled({"action": ERRNO})
    assert finding.verdict == "explicit-deny"


def test_override_takes_the_name_out() -> None:
    """Overruling a deny takes out that name, in every rule that can deny it, and nothing else."""
    tree = changed(
        DOCKER,
        "/syscalls",
        [
            {"names": ["read", "uretprobe", "write", "uretprobe"], "action": ERRNO, "errnoRet": 5},
            {"names": ["uretprobe"], "action": ERRNO},
            {"names": ["uretprobe"], "action": ERRNO, "includes": {"arches": ["arm64"]}},
            {"names": ["uretprobe"], "action": ALLOW, "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"name": "uretprobe", "action": "SCMP_ACT_KILL", "includes": {"caps": ["CAP_BPF"]}},
        ],
    )
    after, edits, [finding] = planned(tree, override_deny=True)
    assert after["syscalls"] == [
        {**DOCKER_RULE, "names": ["uretprobe"]},
        {"names": ["read", "write"], "action": ERRNO, "errnoRet": 5},
        tree["syscalls"][2],
        tree["syscalls"][3],
    ]
    assert [(edit.op, edit.pointer) for edit in edits] == [
        ("remove", "/syscalls/4"),
        ("remove", "/syscalls/1"),
        ("remove", "/syscalls/0/names/3"),
        ("remove", "/syscalls/0/names/1"),
        ("add", "/syscalls/0"),
    ]
    assert finding.changed


def test_override_under_an_allowing_default() -> None:
    """Where the default allows, taking the name out of the deny is all."""
    tree, edits, _ = planned(ruled({"action": ERRNO}, defaultAction=ALLOW), override_deny=True)
    assert tree == {
        "defaultAction": ALLOW,
        "syscalls": [{"names": ["read"], "action": ERRNO}],
    }
    assert len(edits) == 1


def test_override_inside_a_config() -> None:
    """The pointers of a config.json reach into linux.seccomp."""
    tree = changed(CONFIG, "/linux/seccomp", ruled({"action": ERRNO}))
    after, _, _ = planned(tree, override_deny=True)
    assert after["linux"]["seccomp"]["syscalls"] == [
        {"names": ["uretprobe"], "action": ALLOW},
        {"names": ["read"], "action": ERRNO},
    ]


STATES = st.dictionaries(
    st.sampled_from(["uretprobe", "uprobe"]),
    st.sampled_from(["absent", "filtered", "exempt", "unknown"]),
)


@given(trees, STATES, st.sampled_from(["present", "needed", "always"]), st.booleans())
def test_plan_once(tree: dict[str, Any], states: dict[str, str], when: str, override: bool) -> None:
    """The second run changes nothing; a changed call is allowed; no rule repeats the default."""
    calls = (URETPROBE, UPROBE, MSEAL)
    after, edits, findings = planned(tree, calls, states, when, override)
    again, none, verdicts = planned(after, calls, states, when, override)
    assert none == []
    assert again == after
    for before, now in zip(findings, verdicts, strict=True):
        if before.changed:
            assert now.verdict in {"allows", "default-allows", "supervised"}
        else:
            assert now.verdict == before.verdict
    seccomp = document(tree).seccomp or {}
    for edit in edits:
        assert edit.op == "remove" or seccomp["defaultAction"] != ALLOW


@given(trees)
def test_plan_adds_only(tree: dict[str, Any]) -> None:
    """Without --override-deny the amended profile is the old one with one rule in front."""
    after, edits, _ = planned(tree, (URETPROBE, UPROBE))
    for edit in edits:
        pointer = edit.pointer.removesuffix("/0")
        seccomp: dict[str, Any] = document(tree).seccomp or {}
        rules: list[object] = edit.value if isinstance(edit.value, list) else [edit.value]
        assert after == changed(tree, pointer, [*rules, *(seccomp.get("syscalls") or [])])
    assert bool(edits) is (after != tree)
