"""The program that crun is given: made through libseccomp, proven, kept."""

import os
from pathlib import Path
from typing import Any

import pytest

from shim import runtime_directory
from shim.bpf.equivalence import difference
from shim.engines.demonstration import docker_default
from shim.errors import LeftAlone, ShimError
from shim.host.libseccomp import system_libseccomp
from shim.host.runtimes import Runtime
from shim.profile.compile import program as compiled
from shim.start.wrapper import rawbpf
from support import need
from support.containers import TEST_SYSCALL, profile

CALLS = {f"test-syscall-{TEST_SYSCALL}": TEST_SYSCALL}


@pytest.fixture
def runtime() -> Runtime:
    """Return a crun that has the library which is installed here."""
    return Runtime("/usr/bin/crun", [[1, 2, 3]], "crun 1.8.1", system_libseccomp([])[0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have programs kept in a directory of the test's own, which is not there yet."""
    monkeypatch.setattr(runtime_directory, "ROOTS", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    base = tmp_path / ("seccomp-shim" if os.geteuid() else "run")
    return base / "bpf"


def test_docker_s_profile_with_one_call_more(runtime: Runtime, folder: Path) -> None:
    """Against the library's own program, the one call differs and no other."""
    seccomp = docker_default()
    names = [name for rule in seccomp["syscalls"] for name in rule["names"]]
    known = system_libseccomp(names)[1]
    for rule in seccomp["syscalls"]:
        rule["names"] = [name for name in rule["names"] if known[name]]
    made, kept = rawbpf.program(seccomp, CALLS, runtime)
    assert not kept
    found = difference(compiled(seccomp), made)
    assert found.complete
    assert [str(change) for change in found.changes] == [
        f"x86_64 {TEST_SYSCALL}: ERRNO(1) -> ALLOW"
    ]
    assert folder.exists()


def test_calls_of_neighbouring_numbers_are_one_program(runtime: Runtime, folder: Path) -> None:
    """The proof names them as a range, as it would ``uretprobe`` and ``uprobe`` on one kernel."""
    before, _ = rawbpf.program(profile(), {"test-syscall-402": 402}, runtime)
    made, _ = rawbpf.program(profile(), CALLS | {"test-syscall-401": 401}, runtime)
    found = difference(before, made)
    assert {str(change) for change in found.changes} == {
        "x86_64 400..401: ERRNO(1) -> ALLOW",
        "x86_64 402: ALLOW -> ERRNO(1)",
    }
    assert folder.exists()


def test_a_program_is_made_once(runtime: Runtime, folder: Path) -> None:
    """The same profile, library and calls find it again; any other does not."""
    made, _ = rawbpf.program(profile(), CALLS, runtime)
    assert rawbpf.program(profile(), CALLS, runtime) == (made, True)
    others: list[tuple[dict[str, Any], dict[str, int], Runtime]] = [
        (profile(defaultAction="SCMP_ACT_KILL"), CALLS, runtime),
        (profile(), {"test-syscall-401": 401}, runtime),
        (profile(), CALLS, Runtime(runtime.path, [[9]], runtime.program, runtime.libseccomp)),
    ]
    for seccomp, calls, other in others:
        assert rawbpf.program(seccomp, calls, other)[1] is False
    assert (folder.stat().st_mode & 0o777, len(list(folder.iterdir()))) == (0o700, 4)
    assert {each.stat().st_mode & 0o777 for each in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 8, b"\6\0\0\0\0\0\xff"])
def test_what_is_no_program_is_made_again(runtime: Runtime, folder: Path, damage: bytes) -> None:
    """A file that was cut short is not handed to a container."""
    made, _ = rawbpf.program(profile(), CALLS, runtime)
    (only,) = folder.iterdir()
    only.write_bytes(damage)
    assert rawbpf.program(profile(), CALLS, runtime) == (made, False)


def test_a_folder_of_others_is_not_used(runtime: Runtime, folder: Path) -> None:
    """Where anybody else could have written, nothing is read and nothing is left."""
    need.root()
    for mode, owner in ((0o777, 0), (0o700, 65534)):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
        os.chown(folder, owner, 0)
        assert rawbpf.program(profile(), CALLS, runtime)[1] is False
        assert list(folder.iterdir()) == []
        folder.rmdir()


def test_a_link_in_the_folder_s_place_is_not_used(runtime: Runtime, folder: Path) -> None:
    """Nor is one that leads elsewhere."""
    elsewhere = folder.parent.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.parent.mkdir()
    folder.symlink_to(elsewhere)
    assert rawbpf.program(profile(), CALLS, runtime)[1] is False
    assert list(elsewhere.iterdir()) == []


def test_many_programs_do_not_fill_the_memory(
    runtime: Runtime, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a number of them on the directory is emptied first."""
    monkeypatch.setattr(rawbpf, "_KEEP", 2)
    for errno in range(2, 7):
        rawbpf.program(profile(defaultErrnoRet=errno), CALLS, runtime)
        assert len(list(folder.iterdir())) <= 3


def test_another_library_than_ours_is_not_imitated(runtime: Runtime, folder: Path) -> None:
    """What a library resolves and how it orders rules is known of the installed one only."""
    del folder
    other = Runtime(runtime.path, [], runtime.program, "2.4.0")
    with pytest.raises(ShimError, match=r"the runtime's is 2\.4\.0"):
        rawbpf.program(profile(), CALLS, other)


def test_an_errno_that_crun_refuses_is_not_compiled(runtime: Runtime, folder: Path) -> None:
    """A profile that does not start shall not start with our help."""
    del folder
    with pytest.raises(ShimError, match="crun refuses it"):
        rawbpf.program(profile(defaultAction="SCMP_ACT_KILL", defaultErrnoRet=1), CALLS, runtime)


def test_nothing_to_do_is_no_program(runtime: Runtime, folder: Path) -> None:
    """A filter that lets the call through as it is stays the runtime's own."""
    del folder
    with pytest.raises(LeftAlone):
        rawbpf.program(profile(defaultAction="SCMP_ACT_LOG"), CALLS, runtime)


@pytest.mark.parametrize(
    ("program", "fit"),
    [
        ("crun 1.8.1", True), ("crun 0.18", True), ("crun 0.17", False), ("runc 1.3.0", False),
        ("", False),
    ],
)  # fmt: skip
def test_only_crun_since_its_release_0_18_takes_one(program: str, fit: bool) -> None:
    """Another runtime would ignore the annotation."""
    config: dict[str, object] = {"linux": {"seccomp": profile()}}
    reason = rawbpf.unfit(config, Runtime("/x/runtime", [], program, "2.5.4"))
    assert (reason == "") is fit


@pytest.mark.parametrize(
    "seccomp",
    [
        profile(listenerPath="/run/x.sock"),
        profile(syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]),
    ],
)
def test_a_listener_keeps_its_own_filter(seccomp: dict[str, Any]) -> None:
    """It gets its descriptor from the runtime that loads the profile."""
    config: dict[str, object] = {"linux": {"seccomp": seccomp}}
    assert rawbpf.unfit(config, Runtime("/x/crun", [], "crun 1.8.1", "2.5.4"))
