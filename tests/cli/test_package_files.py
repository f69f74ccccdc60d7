"""A file that belongs to a package of the distribution is not edited, but overridden."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli import viewed
from cli.runtimes import telling
from support import need
from support.fleet import DENYING

# Real: the package of this machine that has it is asked for by the real dpkg.
FILE, INSTEAD = "/usr/share/containers/seccomp.json", "/etc/containers/seccomp.json"
FILES = {FILE: DENYING, "/etc/containers/policy.json": b"{}"}
ALL = ("patch", "--all", "--when=always")
# Runs the program once for each argument, and says what has become of the files.
SCRIPT = f"""
import json, os, subprocess, sys
for words in map(json.loads, sys.argv[1:]):
    command = words if words[0] == "cp" else [sys.executable, "-m", "shim", *words]
    print("exit status", subprocess.run(command).returncode, flush=True)
for path in ({FILE!r}, {INSTEAD!r}):
    print(path, os.path.exists(path) and "uretprobe" in open(path).read())
"""


@pytest.fixture(scope="module")
def package() -> str:
    """Return the package that Podman's default profile belongs to here."""
    need.root()
    query = need.program("dpkg-query")
    done = subprocess.run([query, "-S", FILE], capture_output=True, text=True, check=False)
    need.kernel(done.returncode == 0, f"{FILE} belongs to no package")
    return done.stdout.partition(":")[0]


def run(
    folder: Path, *commands: tuple[str, ...], library: str = "2.6.1"
) -> "subprocess.CompletedProcess[str]":
    """Run the program in a view where Podman's default profile denies."""
    words = ["-c", SCRIPT, *map(json.dumps, commands)]
    environment = telling(folder / "bin", runc=library, crun=library)
    return viewed.run(folder, words, FILES, environment=environment)


def test_a_named_one_is_left_alone_unless_forced(package: str, tmp_path: Path) -> None:
    """The package and what overrides the file are named, and it is as it was; --force edits it."""
    command = ("patch", "--when=always", "-i", FILE)
    done = run(tmp_path, command)
    assert "exit status 2" in done.stdout
    assert f"{FILE} False" in done.stdout
    assert f"belongs to the package {package}" in done.stderr
    assert f"cp {FILE} {INSTEAD}, then seccomp-shim patch -i {INSTEAD}" in done.stderr
    done = run(tmp_path, (*command, "--force"))
    assert "exit status 0" in done.stdout
    assert f"{FILE} True" in done.stdout


def test_what_is_told_overrides_it(package: str, tmp_path: Path) -> None:
    """After the two commands the copy is Podman's default for find, and patch --all is content."""
    copy, edit = ("cp", FILE, INSTEAD), ("patch", "--when=always", "-i", INSTEAD)
    done = run(tmp_path, copy, edit, ("find", "--json"), (*ALL, "--check"))
    assert f"{FILE} False" in done.stdout
    assert f"{INSTEAD} True" in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    told = {each["file"]: each for each in map(json.loads, lines)}
    assert [use["who"] for use in told[INSTEAD]["used_by"]] == ["podman, CRI-O (default)"]
    assert told[INSTEAD]["left_alone"] is None
    assert f"the package {package}" in told[FILE]["left_alone"]
    assert "0 of 2 files would change" in done.stdout
    assert INSTEAD not in told[FILE]["left_alone"]
    assert "cp " not in run(tmp_path, copy, ("patch", "--when=always", "-i", FILE)).stderr


def test_patch_all_overrides_it_and_rollback_removes_that(package: str, tmp_path: Path) -> None:
    """The plan shows the copy that is made, the diff all of it, and a rollback takes it away."""
    done = run(tmp_path, (*ALL, "--diff"), (*ALL, "--yes"))
    assert f"+++ {INSTEAD}" in done.stdout
    assert f"{FILE} False\n{INSTEAD} True\n" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith(f"{FILE}  "))
    assert f"belongs to the package {package}" in row
    assert f"read {INSTEAD} instead: patch --all makes it" in row
    done = run(tmp_path, (*ALL, "--yes"), (*ALL, "--check"), ("rollback", "--last"))
    assert "exit status 1" not in done.stdout
    assert f"{FILE} False\n{INSTEAD} False\n" in done.stdout
    done = run(tmp_path, (*ALL, "--yes", "--force"))
    assert f"{FILE} True\n{INSTEAD} False\n" in done.stdout


def test_nothing_is_overridden_without_effect(package: str, tmp_path: Path) -> None:
    """A copy that keeps the package's later versions away is not made where it does nothing."""
    done = run(tmp_path, (*ALL, "--yes"), library="2.5.4")
    assert f"{FILE} False\n{INSTEAD} False\n" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith(f"{FILE}  "))
    assert f"belongs to the package {package}" in row
    assert INSTEAD not in row
    assert "a change would have no effect here, with --force or to a copy" in row
    assert "seccomp-shim install ENGINE --default" in done.stderr
    named = ("patch", "--when=always", "-i", FILE)
    for command in (named, (*ALL, "--diff", FILE), (*ALL, "--diff")):
        done = run(tmp_path, command, library="2.5.4")
        line = next(each for each in done.stderr.splitlines() if f"{FILE}: " in each)
        assert "a change would have no effect here, with --force or to a copy" in line
        assert "cp " not in done.stderr
        assert "seccomp-shim install ENGINE --default" in done.stderr


def test_a_diff_of_what_is_left_alone_says_so(package: str, tmp_path: Path) -> None:
    """A diff without a change is no silence."""
    done = run(tmp_path, (*ALL, "--diff", FILE))
    assert f"{FILE}: is left alone: " in done.stderr
    assert f"belongs to the package {package}" in done.stderr
    assert "0 of 1 file would change" in done.stderr


@pytest.mark.usefixtures("package")
def test_podman_reads_the_copy(tmp_path: Path) -> None:
    """Podman itself takes its default profile from the copy once it is there."""
    podman = need.program("podman")
    script = (
        SCRIPT
        + f"""
bad = "no profile"
open({INSTEAD!r} if "--copy" in os.environ["WORDS"] else {FILE!r}, "w").write(bad)
os.makedirs("/run/rootfs/bin")
command = [{podman!r}, "--root=/run/r", "--runroot=/run/rr", "--storage-driver=vfs"]
command += ["--cgroup-manager=cgroupfs", "run", "--rm", "--network=none", "--rootfs"]
done = subprocess.run([*command, "/run/rootfs", "/bin/true"], capture_output=True, text=True)
print("podman said", done.stderr)
"""
    )
    for copy in (False, True):
        environment = {**os.environ, "WORDS": "--copy" * copy}
        done = viewed.run(tmp_path, ["-c", script], FILES, environment=environment)
        assert f"{INSTEAD if copy else FILE}" in done.stdout.partition("podman said")[2]
        assert "invalid character" in done.stdout


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_a_managed_host_keeps_to_it(package: str, tmp_path: Path, named: bool, force: bool) -> None:
    """Ansible and fleet override it; where it was named that is a problem; force edits it."""
    how: dict[str, Any] = {"everything": not named, "paths": [FILE] * named, "force": force}
    more = {"do": "patched", "when": "always", "override_deny": False, "check": True, "diff": True}
    script = "from shim.agent.main import main; main()"
    environment = telling(tmp_path / "bin", runc="2.6.1", crun="2.6.1")
    done = viewed.run(tmp_path, ["-c", script], FILES, json.dumps({**how, **more}), environment)
    answer = json.loads(done.stdout)
    results = {each["file"]: each for each in answer["files"]}
    assert results[FILE]["result"] == ("would be patched" if force else "left alone")
    assert (f"the package {package}" in results[FILE]["reason"]) == (not force)
    assert bool(answer["problems"]) == (named and not force)
    made = not force and not named
    assert ({FILE, INSTEAD} if made else {FILE}) == results.keys()
    assert (f"+++ {INSTEAD}" in answer["diff"]) == made
