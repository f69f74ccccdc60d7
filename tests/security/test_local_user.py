"""A local user, his files, and root: nothing of root's is touched, whatever he does meanwhile.

docs/security.md, "A local user", says who may cause what.
"""

import os
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shim import abi
from shim.agent import ensure
from shim.cli import main
from shim.discovery import root as limits
from shim.engines.docker import dockerd
from shim.engines.registration import changes
from shim.errors import ShimError
from shim.host import libc
from shim.host.credentials import rights
from shim.host.untrusted_files import reach
from shim.transaction import runs, store
from support import attacker
from support.attacker import NAME, Scene
from support.fleet import DENYING, OTHER

PATCH = ("patch", "--all", "--yes", "--when", "always")
IN_PLACE = ("patch", "-i", "--when", "always", "--state")
EXCHANGES = 1000


def raced(
    pairs: list[tuple[Path, Path]],
    step: Callable[[], object],
    back: Callable[[], object],
    rounds: int = 5,
) -> int:
    """Take a step while the user exchanges directories, and back in peace; some times over.

    Tells how often he has exchanged two.
    """
    done = 0
    for _ in range(rounds):
        with attacker.exchanging(pairs) as count:
            step()
            while count() < EXCHANGES / rounds:
                time.sleep(0.001)
            done += count()
        back()
    return done


@pytest.mark.parametrize("verb", ["patch", "rollback"])
def test_exchanged_directories(scene: Scene, verb: str) -> None:
    """A thousand exchanges while root patches or rolls back: nothing in /etc is touched."""
    pairs = scene.profiles(60)
    before = scene.etc_now()
    steps: dict[str, Callable[[], object]] = {
        "patch": lambda: main([*PATCH, *scene.options, "/home/mallory"]),
        "rollback": lambda: main(["rollback", "--last", "--force", "--state", scene.host.state]),
    }
    if verb == "rollback":
        steps["patch"]()
    step = steps.pop(verb)
    [back] = steps.values()
    assert raced(pairs, step, back) >= EXCHANGES
    assert scene.etc_now() == before
    for each in scene.home.rglob("*"):
        assert each.lstat().st_uid == attacker.UID


def test_host_agent_against_exchanged_directories(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent of fleet apply, which patches and rolls back as root, is not deceived either."""
    pairs = scene.profiles(40)
    before = scene.etc_now()
    monkeypatch.setattr(store, "directory", lambda: scene.host.state)
    where: dict[str, Any] = {"paths": [str(scene.home)], "check": False, "diff": True}

    def patch() -> None:
        how: dict[str, Any] = {"everything": False, "when": "always", "override_deny": False}
        ensure.patched(**where, **how)

    def back() -> None:
        ensure.rolled_back(**where, run_id="", force=True)

    assert raced(pairs, patch, back, rounds=2) >= EXCHANGES
    assert raced(pairs, back, patch, rounds=2) >= EXCHANGES
    assert scene.etc_now() == before


def test_a_folder_that_was_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an admin names in a user's home is not what the user has made a link of."""
    monkeypatch.setattr(store, "directory", lambda: scene.host.state)
    named = scene.home / "profiles"
    named.symlink_to(scene.etc)
    attacker.give(scene.home)
    before = scene.etc_now()
    where: dict[str, Any] = {"paths": [str(named)], "check": False, "diff": True}
    how: dict[str, Any] = {"everything": False, "when": "always", "override_deny": False}
    for answer in (
        ensure.patched(**where, **how),
        ensure.patched(**{**where, **how, "everything": True, "check": True}),
    ):
        assert "link that others can change" in answer["problems"][0]
    assert main([*PATCH, *scene.options, "/home/mallory/profiles"]) in (0, 1, 2)
    assert scene.etc_now() == before


def test_draft_of_a_killed_run(scene: Scene) -> None:
    """What a journal calls a draft is removed where it is one, not where a link leads by now."""
    with store.opened(scene.host.state) as opened:
        journal = runs.Journal(opened, "patch")
        name = f".x{runs.DRAFT}1"
        journal.intend([(0, str(scene.home / "d/x"), "a", "b", str(scene.home / f"d/{name}"))])
        os.close(journal.fd)
        (scene.etc / name).touch()
        (scene.home / "d").symlink_to(scene.etc)
        runs.recover(opened)
    assert (scene.etc / name).exists()


def test_what_a_users_file_names_outside(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """A profile of root's that only a user's compose file names is listed and never changed."""
    strict = scene.host.write("root/own/strict.json")
    strict.parent.chmod(0o700)
    compose = scene.home / "compose.yaml"
    option = "seccomp:../../root/own/strict.json"
    compose.write_text(f"services: {{a: {{security_opt: ['{option}']}}}}\n")
    attacker.give(compose)
    main([*PATCH, *scene.options, "--homes"])
    told = capsys.readouterr().out
    assert strict.read_bytes() == DENYING
    assert "/root/own/strict.json" in told
    assert "only /home/mallory/compose.yaml names it, which user 54321 can change" in told


def test_what_root_names_too(scene: Scene) -> None:
    """A profile that root's own settings name is changed, whoever else names it."""
    shared = scene.host.write("srv/app/p.json")
    text = "services: {a: {security_opt: ['seccomp:%s']}}\n"
    scene.host.write("srv/app/compose.yaml", text % "p.json")
    (scene.home / "compose.yaml").write_text(text % "/srv/app/p.json")
    attacker.give(scene.home)
    main([*PATCH, *scene.options, "--homes"])
    assert b"uretprobe" in shared.read_bytes()


def test_homes_only_when_asked(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --homes nobody's home is looked into, and that is said; with it each is."""
    scene.profiles(1)
    elsewhere = scene.host.write("srv/people/eve/compose.yaml", "")
    elsewhere.write_bytes((scene.home / "compose.yaml").read_bytes())
    scene.host.write("etc/passwd", "eve:x:1001:1001::/srv/people/eve:/bin/sh\n")
    assert main(["find", "--root", str(scene.host.root)]) == 0
    told = capsys.readouterr()
    assert "mallory" not in told.out
    assert "eve" not in told.out
    assert "2 home directories are not looked into" in told.err
    main(["find", "--root", str(scene.host.root), "--homes"])
    told = capsys.readouterr()
    assert f"/home/mallory/p/d0/{NAME}" in told.out
    assert "/srv/people/eve/compose.yaml:2" in told.out


def test_a_users_profile_is_changed_with_his_rights(scene: Scene) -> None:
    """What is a user's own is patched and rolled back as he could do it himself."""
    [(mine, _)] = scene.profiles(1)
    file = mine / NAME
    file.chmod(0o640)
    assert main([*PATCH, *scene.options, "--homes"]) == 0
    assert b"uretprobe" in file.read_bytes()
    info = file.stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (
        attacker.UID,
        attacker.UID,
        0o640,
    )
    assert main(["rollback", "--last", "--state", scene.host.state]) == 0
    assert file.read_bytes() == DENYING
    mine.chmod(0o500)  # he has taken the right from himself: then we have none
    assert main([*PATCH, *scene.options, "--homes"]) == 2
    assert file.read_bytes() == DENYING


@pytest.mark.parametrize("case", ["root's file", "root's folder", "shared", "link", "sticky"])
def test_what_is_nobodys_alone_stays(
    scene: Scene, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """Mixed owners, shared directories and users' links: told why, and left alone."""
    folder = scene.host.root / "srv/app"
    folder.mkdir(parents=True)
    file = folder / NAME
    file.write_bytes(DENYING)
    if case == "root's file":
        attacker.give(folder)
        os.chown(file, 0, 0)
    elif case == "root's folder":
        attacker.give(folder.parent)
        os.chown(folder, 0, 0)
    elif case == "shared":
        folder.chmod(0o775)
    elif case == "sticky":
        folder.chmod(0o1777)
        os.chown(file, attacker.UID, attacker.UID)
    else:
        file.unlink()
        file.symlink_to(scene.etc / NAME)
        attacker.give(folder)
    before = scene.etc_now()
    main([*PATCH, *scene.options, f"/srv/app/{NAME}"])
    told = capsys.readouterr()
    reason = {
        "root's file": "it belongs to user root, the directory above to user 54321",
        "root's folder": "it belongs to user root, the directory above to user 54321",
        "shared": "others can change",
        "sticky": "others can change",
        "link": "link that others can change",
    }[case]
    assert reason in told.out + told.err
    assert file.read_bytes() == DENYING
    assert scene.etc_now() == before


def test_roots_own_links_are_followed(scene: Scene) -> None:
    """A link that only root can change leads where it leads, through a sticky directory too."""
    real = scene.host.write("opt/docker/p.json")
    (scene.etc / "docker").symlink_to("/opt/docker")
    scratch = scene.host.root / "scratch"
    scratch.mkdir()
    scratch.chmod(0o1777)
    own = scene.host.write("scratch/own/p.json", OTHER)
    (scratch / "link").symlink_to("own")
    assert main([*PATCH, *scene.options, "/etc/docker/p.json", "/scratch/link/p.json"]) == 0
    assert b"uretprobe" in real.read_bytes()
    assert b"uretprobe" in own.read_bytes()


def test_a_device_is_not_opened(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """A user's file that names a device has root open none: that alone can reset a machine."""
    device = scene.host.root / "dev/watchdog"
    device.parent.mkdir()
    os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(10, 130))
    compose = scene.home / "compose.yaml"
    compose.write_text("services: {a: {security_opt: ['seccomp:/dev/watchdog']}}\n")
    attacker.give(compose)
    assert main(["find", "--homes", "--root", str(scene.host.root)]) == 1
    assert "is no regular file" in capsys.readouterr().out


def test_only_so_much_of_others_is_read(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What root reads of another user has an end, which is told; what is root's own has none."""
    scene.profiles(30)
    for number in range(50):
        scene.host.write(f"etc/docker/{number}.json", DENYING + b" " * number)
    monkeypatch.setattr(limits, "OTHERS_BYTES", 20 * len(DENYING))
    assert main(["find", "--homes", "--root", str(scene.host.root)]) == 1
    told = capsys.readouterr()
    assert told.out.count("/etc/docker/") == 50
    assert f"more than {20 * len(DENYING)} bytes were read of user 54321" in told.out + told.err
    monkeypatch.setattr(limits, "OTHERS_ENTRIES", 10)
    main(["find", "--homes", "--root", str(scene.host.root)])
    told = capsys.readouterr()
    assert "more than 10 entries were looked at of user 54321" in told.err
    assert told.out.count("/etc/docker/") == 50


def test_install_leaves_users_files(scene: Scene) -> None:
    """Engines' files are not installed to where a user could redirect that."""
    folder = scene.home / "docker"
    folder.mkdir()
    attacker.give(folder)
    file = folder / "daemon.json"
    places = (Path(scene.host.state), str(scene.host.log))
    for edit in (changes.Edit(file, None, b"{}"), changes.Edit(folder / "a/b", None, b"{}")):
        with pytest.raises(ShimError, match="user 54321 can change it"):
            changes.apply("docker", [edit], lambda *_: None, *places)
    assert list(folder.iterdir()) == []
    folder.rmdir()
    folder.symlink_to(scene.etc)
    attacker.give(folder)
    with pytest.raises(ShimError, match="link that others can change"):
        changes.content(file)


def test_patch_in_place_of_a_users_file(scene: Scene) -> None:
    """A single file that root names is changed with its owner's rights, too, links not followed."""
    [(mine, link)] = scene.profiles(1)
    before = scene.etc_now()
    assert main([*IN_PLACE, scene.host.state, str(mine / NAME)]) == 0
    assert b"uretprobe" in (mine / NAME).read_bytes()
    assert (mine / NAME).stat().st_uid == attacker.UID
    assert main([*IN_PLACE, scene.host.state, str(link / NAME)]) == 2
    assert scene.etc_now() == before


def test_state_is_out_of_reach(scene: Scene) -> None:
    """Backups and journals lie where only root can come; a place that a user can change is none."""
    scene.profiles(1)
    assert main([*PATCH, *scene.options, "--homes"]) == 0
    for each in (Path(scene.host.state) / "backups", Path(scene.host.state) / "runs"):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700
    shared = scene.host.folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    for place in (scene.home / "state", shared / "state", shared):
        with pytest.raises(ShimError, match="others can change it"), store.opened(str(place)):
            pass
        assert not (place / "backups").exists()


def test_an_impostor_of_dockerd_is_not_believed(scene: Scene) -> None:
    """A program that a user calls dockerd tells root neither of a file nor of a socket."""
    fake = scene.home / "dockerd"
    fake.write_bytes(Path("/bin/sh").read_bytes())
    fake.chmod(0o755)
    command = [str(fake), "-c", "echo; read x", "--config-file=/etc/docker/daemon.json"]
    identity: dict[str, Any] = {"user": attacker.UID, "group": attacker.UID, "extra_groups": []}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **identity
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        assert running.pid not in [each.pid for each in dockerd.processes()]
        running.kill()


def test_rights_are_the_users_and_come_back(scene: Scene) -> None:
    """With a user's rights root's files are out of reach, and our own are back afterwards."""
    secret = scene.etc / "secret"
    secret.write_text("no")
    secret.chmod(0o600)
    mine = scene.home / "mine"
    seen = []
    with rights(attacker.UID):
        with pytest.raises(PermissionError):
            secret.read_text()
        with pytest.raises(PermissionError):
            (scene.etc / "new").touch()
        mine.touch()
        with rights(None):
            seen.append(secret.read_text())
        with pytest.raises(PermissionError):
            secret.read_text()
    assert seen == [secret.read_text()]
    assert mine.stat().st_uid == attacker.UID
    with pytest.raises(ZeroDivisionError), rights(attacker.UID):
        raise ZeroDivisionError
    assert secret.read_text() == "no"


def test_rights_that_would_not_be_the_users_are_not_taken_on(scene: Scene) -> None:
    """Where the kernel is told to leave capabilities alone, nothing is done in a user's name."""
    libc.prctl(abi.PR_SET_SECUREBITS, abi.SECBIT_NO_SETUID_FIXUP)
    try:
        with pytest.raises(ShimError, match="cannot be taken on here"), rights(attacker.UID):
            (scene.etc / "new").touch()
    finally:
        libc.prctl(abi.PR_SET_SECUREBITS, 0)
    assert not (scene.etc / "new").exists()


def test_reached_once(scene: Scene) -> None:
    """What was reached stays what it was, whatever takes its place on the way meanwhile."""
    [(mine, link)] = scene.profiles(1)
    before = scene.etc_now()
    with reach(str(mine / NAME)) as place:
        mine.rename(scene.home / "aside")
        link.rename(mine)
        place.replace(b"new", DENYING, lambda: None)
    assert (scene.home / "aside" / NAME).read_bytes() == b"new"
    assert scene.etc_now() == before
