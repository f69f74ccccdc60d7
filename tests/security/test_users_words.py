"""What a local user's files say: whom root believes it of, and that it stops nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import shim
from shim.cli import main
from support import attacker, need
from support.attacker import NAME, Scene
from support.fleet import DENYING, OTHER

PATCH = ("patch", "--all", "--yes", "--when", "always")
IN_PLACE = ("patch", "-i", "--when", "always", "--state")
# As fusermount(1) does it for a user, by whose leave alone anything is told of what is in there.
MOUNT = """
import ctypes, os, sys
from shim.host.untrusted_files import PathWalk
mine = sys.argv[1].encode()
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=54321,group_id=54321".encode()
assert ctypes.CDLL(None).mount(b"fuse", mine, b"fuse", 6, options) == 0
before = os.listdir("/proc/self/fd")
for number in range(20):
    try:
        PathWalk().reach(f"{sys.argv[1]}/{number}/profile.json")
    except PermissionError:
        pass
assert os.listdir("/proc/self/fd") == before
"""
NAMING = "services: {a: {security_opt: ['seccomp:%s']}}\n"


@pytest.mark.parametrize(("owner", "group", "mode"), [(1, 0, 0o644), (0, 1, 0o664), (0, 0, 0o646)])
def test_a_users_file_in_a_directory_of_roots(
    scene: Scene, capsys: pytest.CaptureFixture[str], owner: int, group: int, mode: int
) -> None:
    """A file is no word of root's because its directory is: others may have written it."""
    strict = scene.host.write("root/own/strict.json")
    compose = scene.host.write("srv/app/compose.yaml", NAMING % "/root/own/strict.json")
    os.chown(compose, owner * attacker.UID, group * attacker.UID)
    compose.chmod(mode)
    assert main([*PATCH, *scene.options]) == 0
    assert strict.read_bytes() == DENYING
    assert "only /srv/app/compose.yaml names it" in capsys.readouterr().out
    os.chown(compose, 0, 0)
    compose.chmod(0o664)
    assert main([*PATCH, *scene.options]) == 0
    assert b"uretprobe" in strict.read_bytes()


@pytest.mark.parametrize("where", ["/proc/kmsg", "/sys/kernel/tracing/trace_pipe"])
def test_what_is_the_kernels_is_not_read(
    scene: Scene, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    """Nobody has root read what is gone for others then, or never comes; nor does a walk."""
    scene.host.write(where[1:])
    (scene.home / "compose.yaml").write_text(NAMING % where)
    attacker.give(scene.home)
    assert main(["find", "--homes", "--root", str(scene.host.root), "/"]) == 0
    told = capsys.readouterr()
    assert where not in told.out
    assert f"{where}: is the kernel's: not looked at" in told.err


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (".config/docker/daemon.json", '{"seccomp-profile": "\\ud800"}'),
        (".config/docker/daemon.json", '{"seccomp-profile": "\\u0000"}'),
        (".config/containers/containers.conf", '[containers]\nseccomp_profile = "\\u0000"\n'),
        (".config/containers/systemd/a.container", f"SeccompProfile={'/a' * 5000}\n"),
        (".config/containers/systemd/a.container", "SeccompProfile=/\0\n"),
    ],
)
def test_what_is_no_path_stops_nothing(
    scene: Scene, capsys: pytest.CaptureFixture[str], file: str, text: str
) -> None:
    """What a user's file names need be no path; the others' profiles are patched all the same."""
    scene.profiles(1)
    path = scene.home / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    attacker.give(scene.home)
    assert main([*PATCH, *scene.options, "--homes"]) == 0
    assert b"uretprobe" in Path(scene.home / "p/d0" / NAME).read_bytes()
    assert "is no path" in capsys.readouterr().err


def test_what_root_may_not_see_takes_no_descriptor(scene: Scene) -> None:
    """A user's file system in user space tells root nothing, and leaves nothing open."""
    need.kernel(os.path.exists("/dev/fuse"), "there is no FUSE here")
    command = [need.program("unshare"), "--mount", sys.executable, "-c", MOUNT, str(scene.home)]
    packages = {"PYTHONPATH": str(Path(shim.__file__).parents[1])}
    subprocess.run(command, env=os.environ | packages, check=True, timeout=60)


@pytest.mark.parametrize(("place", "dots"), [("home/mallory/.config", 33), ("etc", 2000)])
def test_a_key_of_many_steps(
    scene: Scene, capsys: pytest.CaptureFixture[str], place: str, dots: int
) -> None:
    """A key that takes long to read is not read for a user, and nobody's ends the run."""
    scene.profiles(1)
    conf = scene.host.write(f"{place}/containers/containers.conf", f"seccomp{'.a' * dots} = 1\n")
    attacker.give(scene.home)
    assert main([*PATCH, *scene.options, "--homes"]) == 1
    assert b"uretprobe" in Path(scene.home / "p/d0" / NAME).read_bytes()
    assert str(conf).removeprefix(str(scene.host.root)) in capsys.readouterr().err


def test_a_directory_that_its_owner_may_not_read(scene: Scene) -> None:
    """A user's directory without the right to read it ends no run that others' files are in."""
    [(mine, _)] = scene.profiles(1)
    mine.chmod(0o300)
    other = scene.host.write("etc/docker/seccomp.json", OTHER)
    assert main([*PATCH, *scene.options, "--homes"]) == 0
    assert main([*IN_PLACE, scene.host.state, str(mine / NAME)]) == 0
    assert b"uretprobe" in (mine / NAME).read_bytes()
    assert b"uretprobe" in other.read_bytes()
    assert main(["rollback", "--last", "--state", scene.host.state]) == 0
    assert (mine / NAME).read_bytes() == DENYING
