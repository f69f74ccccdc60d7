"""Programs of today under old profiles: they fail, and with ``unknown_calls: enosys`` they work."""

import json
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from shim import configfile
from shim.engines import oci
from shim.profile.docker import DEFAULT_CAPABILITIES, resolve
from shim.profile.unlisted_calls import unnamed
from support import need
from support.containers import Lab, real
from support.modelled import docker
from support.wrapped import WrappedLab

THREAD = "import threading; t = threading.Thread(target=print, args=('done',)); t.start(); t.join()"
WORKER = "new (require('worker_threads').Worker)('console.log(1)', {eval: true})"
# glibc starts threads by clone3 since 2.34, and by clone where that is ENOSYS.
THREADS = {
    "python3": ["/usr/bin/python3", "-c", THREAD],
    "node": ["/usr/bin/node", "-e", WORKER],
    "xz": [
        "/bin/sh",
        "-c",
        "head -c 3000000 /dev/zero | xz -T2 --block-size=1M | xz -d | wc -c",
    ],
}
# Since Linux 4.11 and 5.8: statx, faccessat2. coreutils and shells of today try them first.
FILES = {
    "ls": ["/usr/bin/ls", "-l", "/usr/bin/ls"],
    "sh": ["/bin/sh", "-c", "[ -r /usr/bin/true ]"],
    "stat": ["/usr/bin/stat", "/usr/bin/true"],
}
# The hook is what Debian's images for Docker have in /etc/apt/apt.conf.d/docker-clean.
HOOK = "APT::Update::Post-Invoke"
APT = f"""
cd /tmp && mkdir -p apt/lists/partial apt/archives/partial repository && : >status
printf 'Package: none\nVersion: 1\nFilename: none.deb\nSize: 1\n' >repository/Packages
echo 'deb [trusted=yes] file:/tmp/repository ./' >list
cat >apt.conf <<.
Dir::Etc {{ main "/dev/null"; parts "/dev/null"; }};
Dir::Etc {{ sourcelist "/tmp/list"; sourceparts "/dev/null"; }};
Dir::State "/tmp/apt"; Dir::State::status "/tmp/status"; Dir::Cache "/tmp/apt";
Acquire::Languages "none"; APT::Sandbox::User "root";
{HOOK} {{ "rm -f /tmp/apt/archives/*.deb || true"; }};
.
APT_CONFIG=/tmp/apt.conf exec apt-get -q update
"""
MAKE = "printf 'all: ; @/usr/bin/true\\n' | make -f -"
STARTING = {
    "apt-get": (APT, 100, f"Problem executing scripts {HOOK}"),
    "make": (MAKE, 2, "make: /usr/bin/true: Operation not permitted"),
}


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    flat = resolve(tree, capabilities=DEFAULT_CAPABILITIES, machine="x86_64", kernel=(6, 18))
    assert flat is not None
    return flat


def _before_statx() -> dict[str, Any]:
    """Return Docker 20.10.0's profile without what Linux has learnt since 3.17."""
    flat = _flat(docker("20.10.0"))
    known = {name for rule in flat["syscalls"] for name in rule["names"]}
    newer, _ = unnamed({**flat, "syscalls": [{"names": ["getrandom"]}]})
    for rule in flat["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in newer]
    assert {"statx", "faccessat2"} <= known & set(newer)
    return flat


def _run(lab: Lab, profile: dict[str, Any], args: list[str]) -> "subprocess.CompletedProcess[str]":
    name = f"shim-test-{uuid.uuid4().hex[:12]}"
    folder = lab.folder / name
    folder.mkdir()
    oci.bundle(folder, profile, args)
    path = folder / "config.json"
    document = json.loads(path.read_text())
    document["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    path.write_text(json.dumps(document))
    return subprocess.run(
        oci.command(lab.runtime, "run", "-b", str(folder), name),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _with_and_without(
    folder: Path, runtime: str, profile: dict[str, Any], args: list[str]
) -> "tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]":
    lab = WrappedLab(folder, real(runtime), test_syscall=0)
    without = _run(lab, profile, args)
    path = folder / "config.yaml"
    path.write_text(f"{path.read_text()}unknown_calls: enosys\n")
    configfile.compile_file(str(path))
    return without, _run(lab, profile, args)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
@pytest.mark.parametrize("program", THREADS)
def test_threads_start_under_dockers_profile_of_2020(
    program: str, runtime: str, tmp_path: Path
) -> None:
    """Docker 20.10.0 passes clone3 over, runc's line is beyond it: EPERM is no thread."""
    need.program(program)
    args = THREADS[program]
    without, done = _with_and_without(tmp_path, runtime, _flat(docker("20.10.0")), args)
    assert without.returncode != 0 or without.stderr
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() in ("done", "1", "3000000")


@pytest.mark.parametrize("program", FILES)
def test_files_are_seen_under_a_profile_older_than_statx(program: str, tmp_path: Path) -> None:
    """Under crun, which gives EPERM; runc answers ENOSYS by itself to all above its line."""
    without, done = _with_and_without(tmp_path, "crun", _before_statx(), FILES[program])
    assert without.returncode != 0
    assert program == "sh" or "Operation not permitted" in without.stderr
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("runtime", ["runc", "crun"])
@pytest.mark.parametrize("program", STARTING)
def test_programs_start_others_under_dockers_profile_of_2020(
    program: str, runtime: str, tmp_path: Path
) -> None:
    """By system(3) or posix_spawn(3), for which glibc tries clone3, too."""
    need.program(program)
    script, status, said = STARTING[program]
    args = ["/bin/sh", "-c", script]
    without, done = _with_and_without(tmp_path, runtime, _flat(docker("20.10.0")), args)
    assert (without.returncode, said in without.stderr) == (status, True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("args", [*FILES.values(), THREADS["python3"]])
def test_the_older_the_profile_the_more_runc_says_by_itself(
    args: list[str], tmp_path: Path
) -> None:
    """Its newest call is older than these: to all of them runc answers ENOSYS, without us."""
    done = _run(Lab(tmp_path, real("runc")), _before_statx(), args)
    assert (done.returncode, done.stderr) == (0, "")
