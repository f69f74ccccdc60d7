"""Profiles as engines read them: keys in any case, and what no engine takes."""

import json
from typing import Any

import pytest

from shim.catalog import kernel_injected
from shim.errors import ShimError
from shim.profile import contents
from shim.profile.document import read
from shim.profile.edit import plan
from shim.profile.edit_contents import patch, planned

CAPITALISED: dict[str, Any] = {
    "DefaultAction": "SCMP_ACT_ERRNO",
    "Architectures": ["SCMP_ARCH_X86_64"],
    "Syscalls": [{"Names": ["read"], "Action": "SCMP_ACT_ALLOW"}],
}


def _read(tree: Any) -> Any:
    return read(json.dumps(tree).encode(), "p.json")


def test_keys_count_in_any_case() -> None:
    """Go takes them, so dockerd and runc enforce such a profile: it is read and patched."""
    text = json.dumps(CAPITALISED)
    held = contents.read(text.encode(), "p.json")
    assert held.parts[0].document.tree["defaultAction"] == "SCMP_ACT_ERRNO"
    after = patch(held, planned(held, kernel_injected().values(), {}, "always")).text
    rule = '{"names": ["uretprobe", "uprobe"], "action": "SCMP_ACT_ALLOW"},'
    assert after == text.replace('[{"Names"', f'[{rule}{{"Names"')


def test_a_sub_architecture_in_lower_case_is_one() -> None:
    """The case that was refused: ``subarchitectures`` of Docker's archMap."""
    row = {"architecture": "SCMP_ARCH_X86_64", "subarchitectures": ["SCMP_ARCH_X86"]}
    tree = _read({"defaultAction": "SCMP_ACT_ERRNO", "archMap": [row], "syscalls": []}).tree
    assert tree["archMap"][0]["subArchitectures"] == ["SCMP_ARCH_X86"]


def test_two_spellings_of_a_key_are_refused() -> None:
    """Which of them counts depends on who reads it."""
    with pytest.raises(ShimError, match="has defaultAction twice, in different spellings"):
        _read({**CAPITALISED, "defaultAction": "SCMP_ACT_ALLOW"})


def test_a_config_is_read_as_the_c_runtimes_do() -> None:
    """In a config.json the exact key counts for crun: another spelling stays refused."""
    with pytest.raises(ShimError, match="must be spelled defaultAction"):
        _read({"ociVersion": "1.0.2", "linux": {"seccomp": CAPITALISED}})


@pytest.mark.parametrize("version", ["4.8.0", "4", "4.x", "4.999", 4.8])
def test_a_kernel_version_has_two_parts(version: Any) -> None:
    """Docker's parser takes no third one, so no verb does."""
    rule = {"names": ["x"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": version}}
    with pytest.raises(ShimError, match="must be a kernel version"):
        _read({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})


def test_a_helm_template_is_called_that() -> None:
    """What is no JSON because it is not rendered yet says so."""
    text = '{"defaultAction": "SCMP_ACT_ERRNO",\n{{- if .Values.x }}\n"syscalls": []}'
    with pytest.raises(ShimError) as error:
        read(text.encode(), "p.json")
    assert "Helm template" in error.value.hint


def test_a_default_tracer_may_be_none() -> None:
    """A default of TRACE denies as others do, and it is told what happens without a tracer."""
    edits, findings = plan(
        _read({"defaultAction": "SCMP_ACT_TRACE", "syscalls": []}),
        kernel_injected().values(),
        {},
        "always",
    )
    assert "gives ENOSYS without a tracer" in findings[0].reason
    assert [finding.changed for finding in findings] == [True, True]
    assert len(edits) == 1


@pytest.mark.parametrize("architecture", ["SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"])
def test_the_native_architecture_is_filtered_without_being_listed(architecture: str) -> None:
    """Such a profile denies the call on x86-64 all the same, and is patched."""
    tree = {**CAPITALISED, "Architectures": [architecture]}
    edits, findings = plan(_read(tree), kernel_injected().values(), {}, "always")
    assert [finding.changed for finding in findings] == [True, True]
    assert edits[-1].value == {"names": ["uretprobe", "uprobe"], "action": "SCMP_ACT_ALLOW"}
    lax = {**tree, "DefaultAction": "SCMP_ACT_ALLOW"}
    assert plan(_read(lax), kernel_injected().values(), {}, "always")[0] == []
