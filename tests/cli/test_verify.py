"""The verb verify on files, as an admin calls it."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shim import abi, cli
from shim.bpf import program as bpf
from shim.bpf.program import LD_ABS, RET_K
from support.filters import ALLOW, X86_64, denying, shipped

ERRNO = "SCMP_ACT_ERRNO"
NAMES = ("uretprobe", "uprobe")


def _old() -> dict[str, Any]:
    """Return the shipped profile as it was before the kernel-injected calls."""
    profile = shipped()
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule.get("names", []) if name not in NAMES]
    return profile


def _with(profile: dict[str, Any], *names: str, **more: Any) -> dict[str, Any]:
    changed = copy.deepcopy(profile)
    changed["syscalls"].append({"names": list(names), "action": "SCMP_ACT_ALLOW", **more})
    return changed


def _files(folder: Path, *contents: "dict[str, Any] | bytes") -> list[str]:
    paths = []
    for number, content in enumerate(contents):
        path = folder / f"{number}"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        paths.append(str(path))
    return paths


def _verify(*arguments: str) -> int:
    return cli.main(["verify", *arguments])


def _report(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = _verify("--json", *arguments)
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, report


def test_an_augmented_profile_is_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both kernel-injected calls, on x86-64 and by name on x32, are the accepted difference."""
    files = _files(tmp_path, _old(), _with(_old(), *NAMES, includes={"arches": ["amd64"]}))
    assert _verify(*files) == 0
    out = capsys.readouterr().out
    assert "Proven: newly allowed are uprobe, uretprobe, and nothing else differs." in out
    assert "x32 twin of uretprobe, added by name" in out
    code, report = _report(capsys, *files)
    assert (code, report["complete"], report["verdict"]) == (0, True, "catalogue")
    found = [(c["arch"], c["name"], c["before"], c["after"]) for c in report["changes"]]
    arches = ("x86_64", "x32")
    assert found == [(arch, name, "ERRNO(1)", "ALLOW") for arch in arches for name in NAMES]


def test_an_old_libseccomp_would_load_no_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For 2.5.4 the augmented profile is the old one; for 2.5.6 it has uretprobe, not uprobe."""
    files = _files(tmp_path, _old(), _with(_old(), *NAMES))
    assert _verify("--for-libseccomp", "2.5.4", *files) == 0
    assert "libseccomp 2.5.4 would load no difference at all" in capsys.readouterr().out
    code, report = _report(capsys, "--for-libseccomp", "2.5.4", *files)
    assert (code, report["verdict"], report["differ_as_written"]) == (0, "none", True)
    code, report = _report(capsys, "--for-libseccomp", "2.5.6", *files)
    assert code == 0
    assert {change["name"] for change in report["changes"]} == {"uretprobe"}


def test_identical_profiles_have_no_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same profile twice is proven equal, and that is what is said."""
    assert _verify(*_files(tmp_path, _old(), _old())) == 0
    assert "no difference" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rule", "mark"),
    [
        pytest.param({"names": ["mount"]}, "not in the catalogue", id="one more call"),
        pytest.param({"names": ["mseal"]}, "", id="a call for programs"),
        pytest.param(
            {
                "names": ["socket"],
                "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}],
            },
            "under a condition on arguments: arg0",
            id="one argument",
        ),
    ],
)
def test_a_profile_loosened_elsewhere_is_caught(
    rule: dict[str, Any], mark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One more thing is allowed than the kernel-injected calls: exit status 1, and it is shown."""
    old = _old()
    for each in old["syscalls"]:
        each["names"] = [name for name in each["names"] if name != "mseal"]
    after = _with(old, *NAMES)
    after["syscalls"].append({"action": "SCMP_ACT_ALLOW", **rule})
    code = _verify(*_files(tmp_path, old, after))
    out = capsys.readouterr().out
    assert code == 1
    assert "!!" in out
    assert mark in out
    assert rule["names"][0] in out


def test_calls_for_programs_reach_i386_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program's call allowed by name is allowed for i386: accepted by the admin's word only."""
    old = _old()
    for each in old["syscalls"]:
        each["names"] = [name for name in each["names"] if name != "fchmodat2"]
    files = _files(tmp_path, old, _with(old, "fchmodat2"))
    code, report = _report(capsys, *files)
    assert code == 1
    refused = [change["arch"] for change in report["changes"] if not change["accepted"]]
    assert refused == ["i386"]
    assert _verify("--also-on", "i386", *files) == 0


@pytest.mark.parametrize(
    ("arch", "number", "code"),
    [
        (X86_64, 335, 0),
        (X86_64, 337, 1),
        (X86_64, 335 | abi.X32_SYSCALL_BIT, 1),
        (abi.AUDIT_ARCH_I386, 335, 1),
        (abi.AUDIT_ARCH_AARCH64, 335, 1),
    ],
    ids=["the call", "one more number", "x32 twin", "i386", "aarch64"],
)
def test_raw_programs_are_compared(
    arch: int, number: int, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prefix for the call is accepted, one for anything else is shown and is not."""
    before = denying(0, 1)
    files = _files(tmp_path, before, bpf.allow(before, arch, number))
    found, report = _report(capsys, *files)
    assert found == code
    changes = [(c["nr"], c["accepted"]) for c in report["changes"]]
    assert changes == [([number, number], code == 0)]


def test_an_x32_twin_without_a_name_needs_the_admins_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In raw programs nothing tells that the twin came by name."""
    before = denying(0)
    after = bpf.allow(before, X86_64, 335)
    after = bpf.allow(after, X86_64, 335 | abi.X32_SYSCALL_BIT)
    files = _files(tmp_path, before, after)
    assert _verify(*files) == 1
    assert "x32 twin of uretprobe" in capsys.readouterr().out
    assert _verify("--also-on", "x32", *files) == 0


def test_a_tightened_filter_is_a_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A call that was allowed before and is denied now is not what an augmentation does."""
    assert _verify(*_files(tmp_path, denying(0, 335), denying(0))) == 1
    assert "not allowed now" in capsys.readouterr().out


def test_what_cannot_be_decided_is_incomplete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proof that was given up is exit status 1, in words and in JSON."""
    monkeypatch.setattr("shim.bpf.equivalence.difference.__defaults__", (10_000,))
    multiply = abi.BPF_ALU | abi.BPF_MUL | abi.BPF_X
    program = bpf.encode(
        [
            (LD_ABS, 0, 0, 16),
            (bpf.TAX, 0, 0, 0),
            (LD_ABS, 0, 0, 24),
            (multiply, 0, 0, 0),
            (0x15, 0, 1, 12345),
            ALLOW,
            (RET_K, 0, 0, 0),
        ]
    )
    files = _files(tmp_path, program, denying())
    assert _verify(*files) == 1
    assert "incomplete" in capsys.readouterr().out
    code, report = _report(capsys, *files)
    assert (code, report["complete"], report["verdict"]) == (1, False, "incomplete")


def test_a_whole_config_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The filter of a config.json is compared with that of a flat profile."""
    flat = {
        "defaultAction": ERRNO,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["read", "clone3"], "action": "SCMP_ACT_ALLOW"}],
    }
    config = {"ociVersion": "1.0.2", "linux": {"seccomp": flat}}
    code, report = _report(capsys, *_files(tmp_path, config, _with(flat, "uretprobe")))
    assert code == 0
    assert [change["name"] for change in report["changes"]] == ["uretprobe"]


def test_capabilities_and_kernel_decide_over_rules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rule under conditions differs only for containers that meet them."""
    caps = {"caps": ["CAP_SYS_ADMIN"], "minKernel": "6.12"}
    files = _files(tmp_path, _old(), _with(_old(), "uretprobe", includes=caps))
    for options, names in {
        (): set(),
        ("--cap", "SYS_ADMIN", "--kernel", "6.12"): {"uretprobe"},
        ("--cap", "cap_sys_admin", "--kernel", "6.11"): set(),
        ("--cap", "all", "--kernel", "7.0"): {"uretprobe"},
    }.items():
        code, report = _report(capsys, *options, *files)
        assert code == 0
        assert {change["name"] for change in report["changes"]} == names


def test_standard_input_is_read(tmp_path: Path) -> None:
    """One of the two may come from a pipe."""
    files = _files(tmp_path, _old(), _with(_old(), "uretprobe"))
    with open(files[1], "rb") as after:
        done = subprocess.run(
            [sys.executable, "-m", "shim", "verify", files[0], "-"],
            stdin=after,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "uretprobe" in done.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"\0" * 8, "BPF"),
        (b"\x20\0\0\0\0", "whole BPF instructions"),
        (bpf.encode([(LD_ABS, 0, 0, 0)]), "not a return"),
        (b'{"defaultAction": "SCMP_ACT_WHAT"}', "SCMP_ACT_WHAT"),
        (b'{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}', ""),
    ],
    ids=["truncated", "zeros", "partial", "no return", "unknown action", "unknown flag"],
)
def test_bad_input_is_one_line(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong with which file, exit status 2, nothing on standard output."""
    files = _files(tmp_path, denying(0), content)
    assert _verify(*files) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert files[1] in captured.err
    assert message in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["-", "-"],
        ["--kernel", "6", "A", "B"],
        ["--for-libseccomp", "2.x", "A", "B"],
        ["--for-libseccomp", "2.5.4", "A", "RAW"],
        ["A", "MISSING"],
    ],
    ids=["stdin twice", "kernel", "release", "release for BPF", "missing file"],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error says what is wrong, exit status 2."""
    a, raw = _files(tmp_path, _old(), denying(0))
    named = {"A": a, "B": a, "RAW": raw, "MISSING": os.fspath(tmp_path / "none")}
    assert _verify(*[named.get(each, each) for each in arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def _lined(folder: Path) -> list[str]:
    """Return a profile that names nothing after getrandom, and what a bare name makes of it."""
    old = {"defaultAction": ERRNO, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": []}
    old = _with(old, "read", "getrandom")
    return _files(folder, old, _with(old, "uretprobe"))


def test_a_moved_line_is_seen_under_runc_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a runtime it is told for both kinds: ``statx`` is refused by runc another way."""
    files = _lined(tmp_path)
    code, report = _report(capsys, *files)
    assert (code, report["verdict"]) == (1, "other")
    statx = next(change for change in report["changes"] if change["name"] == "statx")
    assert (statx["before"], statx["after"]) == ("ERRNO(38)", "ERRNO(1)")
    assert statx["note"] == "denied before and after, but answered otherwise"
    assert statx["runtimes"] == ["runc"]
    added = next(change for change in report["changes"] if change["name"] == "uretprobe")
    assert added["after"] == "ALLOW"
    assert _verify(*files) == 1
    assert "(under runc only)" in capsys.readouterr().out


@pytest.mark.parametrize(("program", "code"), [("runc", 1), ("crun", 0)])
def test_a_runtime_is_compared_by_its_own_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], program: str, code: int
) -> None:
    """A path is asked what it is: crun has no line to move."""
    version = {"runc": "runc version 1.1.15", "crun": "crun version 1.21"}[program]
    script = tmp_path / "some-runtime"
    script.write_text(f"#!/bin/sh\necho {version}\necho libseccomp: 2.6.0\n")
    script.chmod(0o755)
    found, report = _report(capsys, "--runtime", str(script), *_lined(tmp_path))
    assert (found, report["runtimes"]) == (code, {program: version.split()[-1]})


def test_what_a_runtime_here_would_drop_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A runtime whose libseccomp does not know the name loads the same as before."""
    script = tmp_path / "old-runtime"
    script.write_text("#!/bin/sh\necho runc version 1.1.5\necho libseccomp: 2.5.4\n")
    script.chmod(0o755)
    assert _verify("--runtime", str(script), *_lined(tmp_path)) == 0
    assert "runc 1.1.5 would load no difference at all" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--for-libseccomp", "2.4.1"), "2.4.1: libseccomp 2.4.1 is not modelled"),
        (("--runtime", "no-such-runtime"), "no-such-runtime: no such runtime"),
        (("--cap", "FOO"), "FOO: is no capability"),
        (("--cap", "cap_sysadmin"), "cap_sysadmin: is no capability (did you mean SYS_ADMIN"),
    ],
)
def test_what_is_not_modelled_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], part: str
) -> None:
    """Nothing is guessed of an older libseccomp, another runtime or another capability."""
    assert _verify(*options, *_lined(tmp_path)) == 2
    assert part in capsys.readouterr().err


@pytest.mark.parametrize("name", ["SYS_ADMIN", "cap_sys_admin", "Cap_Checkpoint_Restore", "all"])
def test_a_capability_is_written_in_any_case(tmp_path: Path, name: str) -> None:
    """With CAP_ or without, as Docker takes it."""
    profile = _files(tmp_path, _old(), _old())
    assert _verify("--cap", name, *profile) == 0


def test_a_wrong_capability_is_refused_of_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where nothing depends on it: what cannot mean anything is no option."""
    assert _verify("--cap", "FOO", *_files(tmp_path, denying(0), denying(0))) == 2
    assert capsys.readouterr().err.startswith("seccomp-shim verify: FOO: is no capability")
