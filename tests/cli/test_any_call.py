"""Any call, on any architecture of a profile: patch adds it, verify proves that alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shim import cli
from shim.catalog import every, kernel_injected
from shim.data import directory

DEFAULT = json.loads((directory("profiles") / "docker" / "default.json").read_bytes())
NAMES = sorted(every().keys() - kernel_injected().keys())

Patched = Callable[..., tuple[str, str]]


def _profile(**changes: Any) -> dict[str, Any]:
    rules = [{"names": ["read", "statx"], "action": "SCMP_ACT_ALLOW"}]
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules, **changes}


@pytest.fixture
def patched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Patched:
    """Return what patches a profile and names the files of before and after."""

    def run(profile: dict[str, Any], *options: str) -> tuple[str, str]:
        before, after = tmp_path / "before.json", tmp_path / "after.json"
        before.write_text(json.dumps(profile))
        assert cli.main(["patch", "--when", "needed", *options, str(before)]) == 0
        after.write_text(capsys.readouterr().out)
        return str(before), str(after)

    return run


def test_patch_adds_every_call_of_every_architecture(patched: Patched) -> None:
    """None of all the names is refused, and each is in the rule."""
    options = [word for name in NAMES for word in ("--add", name)]
    _, after = patched(_profile(), "--runtime", "crun", *options)
    added = json.loads(Path(after).read_text())["syscalls"][0]["names"]
    assert set(added) == set(NAMES) - {"read", "statx"}


@pytest.mark.parametrize("name", ["clone3", "mkdirat"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_verify_proves_a_call_that_patch_added(
    name: str, machine: str, patched: Patched, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Docker profile patched here allows the call on other machines' hosts as well."""
    profile = json.loads(json.dumps(DEFAULT))
    for rule in profile["syscalls"]:
        rule["names"] = [each for each in rule["names"] if each != name]
    files = patched(profile, "--add", name)
    also = ("--also-on", {"x86_64": "i386", "aarch64": "arm"}.get(machine, "ppc"))
    code = cli.main(["verify", "--json", "--machine", machine, "--add", name, *also, *files])
    report = json.loads(capsys.readouterr().out)
    assert (code, report["verdict"]) == (0, "catalogue")
    changes = {change["arch"]: change["nr"][0] for change in report["changes"]}
    assert changes[machine] == every()[name].numbers[machine]


def test_verify_takes_no_older_call_without_the_admins_word(
    patched: Patched, capsys: pytest.CaptureFixture[str]
) -> None:
    """A call that is newly allowed and was not named is a difference."""
    files = patched(_profile(), "--add", "mkdirat")
    assert cli.main(["verify", *files]) == 1
    assert "mkdirat" in capsys.readouterr().out
    assert cli.main(["verify", "--add", "mkdirat", *files]) == 0


@pytest.mark.parametrize(
    ("option", "word"),
    [("--add", "mkdirr"), ("--also-on", "vax"), ("--machine", "vax")],
)
def test_a_word_that_nobody_knows_is_refused(
    option: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is one line that names the word."""
    (tmp_path / "p.json").write_text(json.dumps(_profile()))
    assert cli.main(["verify", option, word, *[f"{tmp_path}/p.json"] * 2]) == 2
    assert capsys.readouterr().err.startswith(f"seccomp-shim verify: {word}: is no ")


def test_the_line_of_other_architectures_is_kept(
    patched: Patched, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new name moves runc's line on 64-bit ARM too: calls in between get ENOSYS there as well."""
    profile = _profile(
        archMap=[
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
        ]
    )
    files = patched(profile, "--runtime", "runc", "--add", "fchmodat2")
    for machine in ("x86_64", "aarch64"):
        cli.main(["verify", "--machine", machine, "--json", *files])
        report = json.loads(capsys.readouterr().out)
        changed = {
            each["name"]
            for each in report["changes"]
            if "runc" in each["runtimes"] and each["arch"] == machine and each["name"]
        }
        # Below the line of x86-64, so its rule cannot be for both: patch tells of it.
        lost = {"kexec_file_load"} if machine == "aarch64" else set()
        assert changed - kernel_injected().keys() == {"fchmodat2"} | lost
    assert cli.main(["patch", "--check", "--runtime", "runc", "--add", "fchmodat2", files[0]]) == 1
    assert "what runc answers to kexec_file_load changes" in capsys.readouterr().err
