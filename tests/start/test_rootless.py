"""Who we are to the host, as seen from user namespaces."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from shim import configfile
from shim.host import cache
from support import need
from support.isolated import BARE, isolated

CODE = """
import json, os
from shim import config, rootless
settings, doubt = config.load({path!r})
print(json.dumps([rootless.rootless(), rootless.user(), settings, doubt]))
"""
READ = """
import json
from shim.host import cache
print(json.dumps(cache.read("word.json", {path!r})))
"""
CHECKOUT = str(Path(__file__).parents[2])


def _as_user(code: str, *namespace: str) -> Any:
    """Run ``code`` as uid 7000 in a user namespace that ``unshare`` makes with these options."""
    need.root()
    command = ["setpriv", "--reuid", "7000", "--regid", "7000", "--clear-groups", *namespace]
    code = f"import sys; sys.path.insert(0, {CHECKOUT!r})\n{code}"
    done = subprocess.run(
        [*command, *BARE, "-c", code], capture_output=True, text=True, check=False, cwd="/"
    )
    need.kernel("unshare failed" not in done.stderr, "users may make no user namespaces here")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _open(path: Path) -> None:
    """Let other users through the private directories on the way to ``path``, however many."""
    for folder in (path, *path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Return settings that root owns and everybody may read."""
    _open(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(f"on_error: deny\nlog: {tmp_path}/audit.jsonl\n")
    path.chmod(0o644)
    configfile.compile_file(str(path))
    return path


def test_root_is_not_rootless(settings: Path) -> None:
    """Root of the host keeps the log that the settings name."""
    need.root()
    found = isolated(CODE.format(path=str(settings)))
    assert found[:2] == [False, 0]
    assert found[2]["log"] == f"{settings.parent}/audit.jsonl"


@pytest.mark.parametrize("namespace", [(), ("unshare", "--user", "--map-root-user")])
def test_a_user_is_rootless(namespace: tuple[str, ...]) -> None:
    """A user is known by the uid of the host, also where it is uid 0 of a namespace."""
    found = _as_user(CODE.format(path="/etc/hosts"), *namespace)
    assert found[:2] == [True, 7000]


def test_settings_of_root_outside_of_etc_are_nobodys_in_a_namespace(settings: Path) -> None:
    """Where root's files show as nobody's, only what is in /etc is taken for root's."""
    found = _as_user(CODE.format(path=str(settings)), "unshare", "--user", "--map-root-user")
    assert found[2]["on_error"] == "allow"
    assert "may be written by others" in found[3]


def test_a_user_who_is_in_no_database_has_no_log() -> None:
    """Without a home the settings hold, and it is said that there is no log of the user's own."""
    found = _as_user(CODE.format(path="/etc/seccomp-shim/none.yaml"))
    assert found[2]["log"] == "/var/log/seccomp-shim/audit.jsonl"
    assert "no log of the user's own" in found[3]


def test_users_of_this_system_have_a_log_in_their_home(tmp_path: Path) -> None:
    """The log is below the home that the user database names, in a directory for the user alone."""
    need.root()
    home = tmp_path / "home"
    home.mkdir()
    _open(tmp_path)
    os.chown(home, 7000, 7000)
    passwd = tmp_path / "passwd"
    passwd.write_text(f"root:x:0:0::/root:/bin/sh\nshimtest:x:7000:7000::{home}:/bin/sh\n")
    passwd.chmod(0o644)
    script = f'mount --bind {passwd} /etc/passwd; exec "$@"'
    place = ["unshare", "--mount", "sh", "-c", script, "sh"]
    code = CODE.format(path="/etc/seccomp-shim/none.yaml")
    command = [*place, "setpriv", "--reuid", "7000", "--regid", "7000", "--clear-groups", *BARE]
    done = subprocess.run(
        [*command, "-c", f"import sys; sys.path.insert(0, {CHECKOUT!r})\n{code}"],
        capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    log = f"{home}/.local/state/seccomp-shim/audit.jsonl"
    assert f'"log": "{log}"' in done.stdout
    assert Path(log).parent.stat().st_mode & 0o777 == 0o700


def test_what_root_has_found_out_is_believed_in_a_namespace() -> None:
    """What root keeps of this machine in /run holds for rootless containers, too."""
    need.root()
    with tempfile.TemporaryDirectory(dir="/run", prefix="shim-test-") as name:
        Path(name).chmod(0o755)
        cache.write("word.json", ["kept"], name)
        assert _as_user(READ.format(path=name), "unshare", "--user", "--map-root-user") == ["kept"]


def test_what_a_user_keeps_is_not_believed(tmp_path: Path) -> None:
    """A directory of the user's own is no source of facts, whoever he is in his namespace."""
    need.root()
    _open(tmp_path)
    own = tmp_path / "own"
    own.mkdir()
    (own / "word.json").write_text('["kept"]')
    for path in (own, own / "word.json"):
        os.chown(path, 7000, 7000)
    assert _as_user(READ.format(path=str(own))) is None
