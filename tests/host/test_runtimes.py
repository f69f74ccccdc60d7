"""What the runtimes of this host, and its own libseccomp, say they know."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from shim.host.libseccomp import system_libseccomp
from shim.host.runtimes import about, find, knows, libseccomp_version
from support import need


def test_libseccomp_resolves_old_names_and_no_invented_one() -> None:
    """The system's library has a version, knows read, and does not know nonsense."""
    version, known = system_libseccomp(["read", "no_such_call"])
    assert [part.isdigit() for part in version.split(".")] == [True] * 3
    assert known == {"read": True, "no_such_call": False}


def test_runc_tells_its_libseccomp(tmp_path: Path) -> None:
    """Runc names the version it is linked with, and is asked once while it stays the same."""
    runc = os.path.realpath(need.program("runc"))
    tmp_path.chmod(0o755)
    version = libseccomp_version(runc, str(tmp_path))
    assert version is not None
    assert version.startswith("2.")
    if os.geteuid() == 0:
        kept = json.loads((tmp_path / "runtimes.json").read_text())
        assert kept[runc]["libseccomp"] == version


def test_a_runtime_that_tells_nothing_is_unknown(tmp_path: Path) -> None:
    """A program that prints no version, fails, hangs or is not there has none."""
    for name, body in {"silent": "exit 0", "failing": "exit 1", "noisy": "echo '{]'"}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        assert libseccomp_version(str(program), str(tmp_path)) is None
    assert libseccomp_version("/nowhere", str(tmp_path)) is None


def script(folder: Path, name: str, body: str) -> str:
    """Write a runtime that is a shell script; give its path."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return str(program)


def test_crun_is_known_by_the_library_it_loads(tmp_path: Path) -> None:
    """Where crun says nothing of libseccomp, the loader names the file."""
    crun = need.program("crun")
    loaded = subprocess.run(["ldd", crun], check=True, capture_output=True, text=True).stdout
    need.kernel("libseccomp.so.2 => " in loaded, "crun is linked statically")
    library = os.path.realpath(loaded.partition("libseccomp.so.2 => ")[2].split()[0])
    version = libseccomp_version(crun, str(tmp_path))
    assert version is not None
    assert library.endswith(f"libseccomp.so.{version}")


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_a_runtime_says_what_it_is(name: str) -> None:
    """Each tells its name and release, by which we know what it understands."""
    found = about(need.program(name), "/proc/none")
    assert found.program.startswith(f"{name} ")
    assert found.is_at_least(name, "0.1")
    assert not found.is_at_least(name, "1000")
    assert not found.is_at_least("youki", "0.1")


@pytest.mark.parametrize(
    ("said", "program"),
    [
        ("runc version 1.1.5+ds1\ncommit: x", "runc 1.1.5+ds1"),
        ("NVIDIA Container Runtime version 1.13.5\nrunc version 1.1.5", ""),
        ("", ""),
        ("runc", ""),
        ("runc version", ""),
    ],
)
def test_the_first_line_of_the_version_counts(tmp_path: Path, said: str, program: str) -> None:
    """A runtime in front of another is neither of those that we know more of."""
    assert about(script(tmp_path, "r", f"printf '{said}'"), "/proc/none").program == program


def test_a_name_is_found_without_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crun shows its hooks no path of its own: its name is looked up in the usual directories."""
    runc = os.path.realpath(need.program("runc"))
    monkeypatch.delenv("PATH")
    assert find("runc") == runc
    assert libseccomp_version("runc", "/proc/none") == libseccomp_version(runc, "/proc/none")
    assert find("no-such-runtime") == find("") == find("../bin/sh") == ""


def test_the_features_document_comes_first(tmp_path: Path) -> None:
    """What `features` says counts, and what follows on standard error or after does not."""
    features = json.dumps({"annotations": {"io.github.seccomp.libseccomp.version": "2.7.1"}})
    body = f"[ $1 = features ] && echo '{features}' && exit\necho 'libseccomp: 2.0.0'"
    assert libseccomp_version(script(tmp_path, "r", body), "/proc/none") == "2.7.1"


def test_a_runtime_is_asked_once_while_it_is_the_same(tmp_path: Path) -> None:
    """The answer is kept until the binary changes."""
    need.root()
    tmp_path.chmod(0o755)
    path = script(tmp_path, "r", f"echo x >> {tmp_path}/asked\necho libseccomp: 2.5.5")
    assert [libseccomp_version(path, str(tmp_path)) for _ in range(3)] == ["2.5.5"] * 3
    asked = (tmp_path / "asked").read_text().count("x")
    script(tmp_path, "r", "echo libseccomp: 2.6.0")
    assert libseccomp_version(path, str(tmp_path)) == "2.6.0"
    assert asked == 2  # features, then --version


def test_a_runtime_that_does_not_end_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that answers nothing in time is unknown, is killed, and is asked again."""
    need.root()
    tmp_path.chmod(0o755)
    monkeypatch.setattr("shim.host.runtimes._SECONDS", 0.2)
    path = script(tmp_path, "r", f"echo $$ > {tmp_path}/pid\nexec sleep 1000")
    assert libseccomp_version(path, str(tmp_path)) is None
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
    assert not (tmp_path / "runtimes.json").exists()


@pytest.mark.parametrize(
    ("version", "since", "expected"),
    [
        ("2.5.4", "2.5.6", False), ("2.5.6", "2.5.6", True), ("2.6.0", "2.5.6", True),
        ("2.10.0", "2.5.6", True), ("2.6.0-rc1", "2.5.6", True), (None, "2.5.6", False),
        ("2.6.0", "", False), ("", "2.5.6", False), ("x.y.z", "2.5.6", False),
    ],
)  # fmt: skip
def test_versions_are_compared_as_numbers(version: str | None, since: str, expected: bool) -> None:
    """2.10 is later than 2.5, and no version knows nothing."""
    assert knows(version, since) is expected
