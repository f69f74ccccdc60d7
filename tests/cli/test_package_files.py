"""A file that belongs to a package of the distribution is not edited, but overridden."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support import need, viewed
from support.fleet import DENYING

# Real: the package of this machine that has it is asked for by the real dpkg.
FILE, INSTEAD = "/usr/share/containers/seccomp.json", "/etc/containers/seccomp.json"
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
    """Give the package that Podman's default profile belongs to here."""
    need.root()
    query = need.program("dpkg-query")
    done = subprocess.run([query, "-S", FILE], capture_output=True, text=True, check=False)
    need.kernel(done.returncode == 0, f"{FILE} belongs to no package")
    return done.stdout.partition(":")[0]


def run(folder: Path, *commands: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
    """Run the program in a view where Podman's default profile denies."""
    words = ["-c", SCRIPT, *map(json.dumps, commands)]
    return viewed.run(folder, words, {FILE: DENYING, "/etc/containers/policy.json": b"{}"})


@pytest.mark.parametrize(
    ("command", "status"), [(("patch", "--when=always", "-i", FILE), 2), ((*ALL, "--yes"), 0)]
)
def test_it_is_left_alone_unless_forced(
    package: str, tmp_path: Path, command: tuple[str, ...], status: int
) -> None:
    """The package and what overrides the file are named, and it is as it was; --force edits it."""
    done = run(tmp_path, command)
    said = done.stdout + done.stderr
    assert f"exit status {status}" in said
    assert f"{FILE} False" in said
    assert f"belongs to the package {package}" in said
    assert f"cp {FILE} {INSTEAD}, then seccomp-shim patch -i {INSTEAD}" in said
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


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_a_managed_host_keeps_to_it(package: str, tmp_path: Path, named: bool, force: bool) -> None:
    """Ansible and fleet leave it alone; where it was named that is a problem; force edits it."""
    how: dict[str, Any] = {"everything": not named, "paths": [FILE] * named, "force": force}
    more = {"do": "patched", "when": "always", "override_deny": False, "check": True, "diff": False}
    script = "from shim.agent.main import main; main()"
    files = {FILE: DENYING}
    done = viewed.run(tmp_path, ["-c", script], files, stdin=json.dumps({**how, **more}))
    answer = json.loads(done.stdout)
    [file] = answer["files"]
    assert file["result"] == ("would be patched" if force else "left alone")
    assert (f"the package {package}" in file["reason"]) == (not force)
    assert bool(answer["problems"]) == (named and not force)
