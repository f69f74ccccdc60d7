"""What the wrapper makes of a bundle: left alone, adjusted once, and whatever else it says."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from shim.atomic import identity
from shim.engines import oci
from support.containers import (
    ENOSYS,
    EPERM,
    LET_THROUGH,
    OTHER_TEST_SYSCALL,
    TEST_SYSCALL,
    Lab,
    profile,
    run,
)
from support.wrapped import WrappedLab, config_of, name_of

RAW_BPF = "run.oci.seccomp_bpf_data"


def denying_by_name() -> dict[str, Any]:
    """Return a profile whose author denies the call."""
    body = profile()
    denial = {"names": [f"test-syscall-{TEST_SYSCALL}"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    return body | {"syscalls": [*body["syscalls"], denial]}


@pytest.mark.parametrize(
    ("seccomp", "reason"),
    [
        (None, "unconfined"),
        (profile(defaultAction="SCMP_ACT_ALLOW"), "default-allows"),
        (denying_by_name(), "explicit-deny"),
    ],
    ids=["none", "open", "explicit"],
)
def test_what_needs_nothing_is_left_byte_for_byte(
    lab: WrappedLab, seccomp: dict[str, Any] | None, reason: str
) -> None:
    """No profile, one that allows, one that denies by name: logged, and not touched."""
    with lab.container(seccomp=seccomp) as container:
        container.ready()
        document = config_of(container.folder)
    assert document["linux"].get("seccomp") == seccomp
    assert not document["hooks"]
    assert RAW_BPF not in document.get("annotations", {})
    (line,) = lab.log()
    assert (line["event"], reason in line["reason"]) == ("left-alone", True)


def annotate(folder: Path, **annotations: str) -> None:
    """Put annotations into the bundle, as ``docker run --annotation`` does."""
    document = config_of(folder)
    document["annotations"] = annotations
    (folder / "config.json").write_text(json.dumps(document))


@pytest.mark.parametrize("data", ["", "AAAA", "BgAAAAAA/38="], ids=["empty", "broken", "allow-all"])
def test_a_users_own_program_is_neither_believed_nor_widened(lab: WrappedLab, data: str) -> None:
    """With a foreign program in the annotation, the filter is looked at when it is loaded.

    runc pays the annotation no heed: there the container is adjusted like any other.
    """
    plain = Lab(lab.folder, lab.real)
    seen: list[tuple[int, str]] = []
    for each in (plain, lab):
        name = f"shim-annotated-{os.getpid()}"
        folder = lab.folder / f"bundle-{len(seen)}"
        folder.mkdir()
        oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
        annotate(folder, **{RAW_BPF: data})
        with oci.started(each.runtime, folder, name) as process:
            output, _ = process.communicate("\n")
            seen.append((process.returncode, output))
    expected = f"ready\n{TEST_SYSCALL} {ENOSYS}\n{OTHER_TEST_SYSCALL} {EPERM}\n"
    if name_of(lab) == "runc":
        assert seen[1] == (0, expected)
    else:
        assert seen[1] == seen[0]
        assert config_of(folder)["annotations"] == {RAW_BPF: data}


@pytest.mark.parametrize(
    "changes",
    [
        {"flags": ["SECCOMP_FILTER_FLAG_LOG"]},
        {"defaultAction": "SCMP_ACT_KILL_PROCESS"},
        {"defaultErrnoRet": 1},
        {"architectures": []},
        {"architectures": ["SCMP_ARCH_AARCH64"]},
    ],
    ids=str,
)
def test_profiles_of_many_kinds(crun: WrappedLab, changes: dict[str, Any]) -> None:
    """The program has the default, the flags and the architectures that crun's own would have."""
    calls = (TEST_SYSCALL,) if "KILL" in str(changes) else (TEST_SYSCALL, OTHER_TEST_SYSCALL)
    seen = run(crun, seccomp=profile(**changes), args=oci.caller(calls))
    assert seen == {nr: LET_THROUGH[nr] for nr in calls}
    assert crun.events("adjusted")[0]["mechanism"] == "raw-bpf"


@pytest.mark.parametrize(
    "annotations",
    [
        {"run.oci.seccomp_fail_unknown_syscall": "1"},
        {"run.oci.seccomp.plugins": "/nowhere.so"},
    ],
    ids=str,
)
def test_what_a_program_cannot_stand_for_falls_to_the_hook(
    crun: WrappedLab, annotations: dict[str, str]
) -> None:
    """Where crun does more with a profile than load it, the hook is entered in its place."""
    folder = crun.folder / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL,)))
    annotate(folder, **annotations)
    name = f"shim-fallback-{os.getpid()}"
    with oci.started(crun.runtime, folder, name) as process:
        process.communicate("\n")
    document = config_of(folder)
    assert RAW_BPF not in document["annotations"]
    assert f"{crun.bin}/seccomp-shim-hook" in document["hooks"]["createRuntime"][0]["args"]


def test_twice_on_the_same_bundle(lab: WrappedLab) -> None:
    """A bundle that is used again is not changed again, and still does what it did."""
    folder = lab.folder / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
    config = folder / "config.json"
    files = []
    for number in range(3):
        with oci.started(lab.runtime, folder, f"shim-again-{os.getpid()}-{number}") as process:
            oci.wait_ready(process, folder)
            assert oci.outcomes(process) == LET_THROUGH
        (folder / "pid").unlink()
        files.append((identity(config.stat()), config.read_text()))
    assert len(set(files)) == 1


def test_a_kept_bundle_whose_profile_was_changed(crun: WrappedLab) -> None:
    """The program of an earlier start does not outlive the profile that it stands for."""
    folder = crun.folder / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
    for seccomp, expected in (
        (profile(), LET_THROUGH),
        (profile(defaultErrnoRet=13), {TEST_SYSCALL: ENOSYS, OTHER_TEST_SYSCALL: 13}),
        (None, {TEST_SYSCALL: ENOSYS, OTHER_TEST_SYSCALL: ENOSYS}),
        (profile(), LET_THROUGH),
    ):
        document = config_of(folder)
        document["linux"]["seccomp"] = seccomp
        (folder / "config.json").write_text(json.dumps(document))
        with oci.started(crun.runtime, folder, f"shim-kept-{os.getpid()}") as process:
            oci.wait_ready(process, folder)
            assert oci.outcomes(process) == expected
        (folder / "pid").unlink()
    assert [line["event"] for line in crun.log() if line["level"] == "error"] == []


def test_another_test_syscall_takes_the_place_of_the_first(lab: WrappedLab) -> None:
    """What an earlier start entered gives way to what this one needs."""
    folder = lab.folder / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
    for test_syscall in (TEST_SYSCALL, OTHER_TEST_SYSCALL):
        lab.use(test_syscall)
        with oci.started(lab.runtime, folder, f"shim-other-{os.getpid()}") as process:
            oci.wait_ready(process, folder)
            seen = oci.outcomes(process)
        (folder / "pid").unlink()
    assert seen[OTHER_TEST_SYSCALL] == ENOSYS


def test_mode_owner_and_unknown_fields_stay(lab: WrappedLab) -> None:
    """The new config.json is the old one but for what was added, number formats included."""
    folder = lab.folder / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL,)))
    path = folder / "config.json"
    odd = '{"x-ours": [1.50, 1E2, 12345678901234567890, -0, "\\u00e9\\/"], '
    text = odd + path.read_text().lstrip().removeprefix("{")
    path.write_text(text)
    path.chmod(0o640)
    os.chown(path, 12345, 54321)
    with oci.started(lab.runtime, folder, f"shim-odd-{os.getpid()}") as process:
        process.communicate("\n")
    info = path.stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o640, 12345, 54321)
    assert odd.removeprefix("{") in path.read_text()
    assert path.read_text() != text
    assert [each.name for each in folder.iterdir() if each.name.startswith(".")] == []
