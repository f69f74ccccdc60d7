"""What root is told of what users have in their homes, and what they cannot do with it."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.verbs import BIN, prepare, remove, shim
from shim.engines.podman import users
from support import attacker, need
from support.attacker import UID
from support.host import Host, throwaway

DAY = 24 * 60 * 60
HOME = "/opt/homes/alice"
CONF = f"{HOME}/.config/containers/containers.conf.d/99-seccomp-shim.conf"
AS_USER = f"setpriv --reuid {UID} --regid {UID} --clear-groups env HOME={HOME}"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Yield a view of this host with us installed and a user, who has a home."""
    need.program("podman")
    with throwaway(tmp_path_factory.mktemp("view")) as host:
        prepare(host)
        host.run(
            f"echo alice:x:{UID}:{UID}::{HOME}:/bin/sh >>/etc/passwd; mkdir -p {HOME}\n"
            f"chown {UID}:{UID} {HOME}"
        )
        yield host


def test_a_rootless_error_shows_in_roots_status(host: Host) -> None:
    """The log is the user's own; root is told what went wrong, and that it is his word."""
    assert "alice" not in shim(host, "status podman").stdout
    host.run(f"echo no-json | {AS_USER} {BIN}/seccomp-shim-hook")
    done = shim(host, "status podman", code=1)
    log = f"{HOME}/.local/state/seccomp-shim/audit.jsonl"
    assert "ATTENTION  1 adjustment went wrong in the last 24 hours, as the log of user alice" in (
        done.stdout
    )
    assert log in done.stdout
    assert "failed, no container state on standard input" in done.stdout
    [user] = json.loads(shim(host, "status podman --json", code=1).stdout)["users"]
    assert (user["name"], user["log"], len(user["events"])) == ("alice", log, 1)
    assert "alice" not in shim(host, "status docker").stdout
    host.run(f"rm {log}")
    shim(host, "status podman")


def test_a_users_own_registration_is_named(host: Host) -> None:
    """By status, by root's uninstall, and as the program is removed: the file stays."""
    shim(host, "install podman", before=AS_USER)
    assert f"alice has registered Podman for himself: {CONF}" in shim(host, "status podman").stdout
    said = shim(host, "uninstall podman").stderr
    assert f"user alice has registered it for himself, which stays: {CONF}" in said
    said = remove(host).stdout
    assert f"these files stay:\n  {CONF}\n" in said
    host.run(f"test -e {CONF}")


# --- what a user can put there ----------------------------------------------------------------


@pytest.fixture
def home() -> Iterator[Path]:
    """Yield the home of a user, and beside it the user database that names him."""
    with attacker.homes() as folder:
        home = folder / "mallory"
        (home / users.LOG).parent.mkdir(parents=True)
        (home / users.REGISTRATION).parent.mkdir(parents=True)
        attacker.give(home)
        (folder / "passwd").write_text(f"root:x:0:0::/root:\nmallory:x:{UID}:{UID}::{home}:\n")
        yield home


def look(home: Path) -> list[users.User]:
    """Look as root does."""
    return users.registered(DAY, str(home.parent / "passwd"))


def line(**fields: Any) -> str:
    """Return a line of a log."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    return json.dumps({"time": now, "level": "error", "event": "failed", **fields}) + "\n"


def test_links_of_a_users_lead_nowhere(home: Path) -> None:
    """Neither the file nor a directory on the way may be a link: it is not even looked at."""
    secret = home.parent / "secret"
    secret.write_text(line(reason="seccomp-shim, and root's alone"))
    secret.chmod(0o600)
    (home / users.LOG).symlink_to(secret)
    (home / users.REGISTRATION).symlink_to(secret)
    assert look(home) == []
    os.rename(home / ".local", home.parent / "moved")
    (home / ".local").symlink_to(home.parent / "moved")
    assert look(home) == []


def test_what_the_user_may_not_read_is_not_read(home: Path) -> None:
    """Root's file in his directory, which he has moved there, is not his to show."""
    (home / users.LOG).write_text(line())
    (home / users.LOG).chmod(0o600)
    assert look(home) == []


def test_a_home_of_somebody_elses_is_passed_over(home: Path) -> None:
    """Whatever the user has in it."""
    (home / users.LOG).write_text(line())
    attacker.give(home)
    assert look(home)
    os.chown(home, UID + 1, UID + 1)
    assert look(home) == []


def test_what_is_no_file_keeps_nobody_waiting(home: Path) -> None:
    """A FIFO is told; so is what takes too long."""
    os.mkfifo(home / users.LOG)
    attacker.give(home)
    [user] = look(home)
    assert "is no regular file" in user.unseen


def test_a_user_who_takes_too_long_hides_no_other(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a moment of his own, and all together have one."""
    (home / users.LOG).write_text(line())
    attacker.give(home)
    database = home.parent / "passwd"
    database.write_text(f"slow:x:{UID}:{UID}::{home.parent}/slow:\n" + database.read_text())
    told = users._tell

    def tell(uid: int, path: str, seconds: float, writer: int) -> None:
        if path.endswith("slow"):
            time.sleep(60)
        told(uid, path, seconds, writer)

    monkeypatch.setattr(users, "_tell", tell)
    monkeypatch.setattr(users, "_SECONDS", 0.2)
    slow, mallory = look(home)
    assert slow.unseen == f"{home.parent}/slow: it takes too long to look there"
    assert len(mallory.events) == 1


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + '"error"\n',
        '{"time": "' + "x" * 3_000_000 + '"error"',
        '{"level": "error"' + ', "a": {"b": [1]}' * 1000 + "}\n",
        line(container={"a": [1] * 10_000}, reason="\x1b[2J" * 10_000),
        "\0" * 2_000_000,
        line() * 20_000,
    ],
)
def test_whatever_is_in_a_log(home: Path, text: str) -> None:
    """It is read to a bound, and of what it says only a little is told, as text."""
    (home / users.LOG).write_text(text)
    attacker.give(home)
    found = look(home)
    assert all(
        len(value) <= 300 for user in found for each in user.events for value in each.values()
    )
    assert all(len(user.events) <= 20 and not user.unseen for user in found)
