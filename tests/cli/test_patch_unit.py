"""``patch --unit``: a drop-in for a systemd service, as systemd itself reads it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.patching import Run, logged, refused
from shim.discovery import unitfilter
from shim.discovery.root import Root
from support import need

# A call that libseccomp knows since 2.5.5, and Debian's 2.5.4 too.
CALL = "cachestat"
FOLDER = "etc/systemd/system"


def _unit(top: Path, text: str, **drop_ins: str) -> Path:
    """Write a unit ``x.service`` below ``top``; return the place of our drop-in."""
    folder = top / FOLDER
    (folder / "x.service.d").mkdir(parents=True)
    (folder / "x.service").write_text(f"[Service]\nExecStart=/bin/true\n{text}")
    for name, more in drop_ins.items():
        (folder / f"x.service.d/{name}.conf").write_text(f"[Service]\n{more}")
    return folder / "x.service.d" / unitfilter.DROP_IN


def _complaints(top: Path) -> str:
    """Return what systemd says of the unit's calls."""
    need.program("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "verify", "x.service"],
        env={**os.environ, "SYSTEMD_UNIT_PATH": str(top / FOLDER), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    return "".join(line for line in done.stderr.splitlines() if "system call" in line.lower())


def _patch(shim: Run, top: Path, *more: str) -> "subprocess.CompletedProcess[bytes]":
    state = ("--state", str(top / "state"))
    return shim("--unit", "x", "--root", top, "--add", CALL, *state, *more)


def test_a_drop_in_is_written_logged_and_rolled_back(shim: Run, tmp_path: Path, log: Path) -> None:
    """Systemd takes it without a complaint; a second run finds nothing to do."""
    place = _unit(tmp_path, "SystemCallFilter=@system-service\n")
    shown = _patch(shim, tmp_path, "--diff")
    assert shown.stdout.decode().endswith(f"+[Service]\n+SystemCallFilter={CALL}\n")
    assert not place.exists()
    assert _patch(shim, tmp_path, "--check").returncode == 1
    done = _patch(shim, tmp_path)
    assert done.returncode == 0
    assert b"systemctl daemon-reload && systemctl restart x.service" in done.stderr
    assert place.read_text().endswith(f"[Service]\nSystemCallFilter={CALL}\n")
    assert _complaints(tmp_path) == ""
    assert CALL in logged(log)[-1]["syscall"]
    assert _patch(shim, tmp_path, "--check").returncode == 0
    back = [
        sys.executable,
        "-m",
        "shim",
        "rollback",
        "--state",
        str(tmp_path / "state"),
        str(place),
    ]
    folder = tmp_path / "var-log"
    (folder / "seccomp-shim").mkdir(parents=True)
    script = 'mount --bind "$0" /var/log && exec "$@"'
    subprocess.run(["unshare", "-m", "sh", "-c", script, str(folder), *back], check=True)
    assert not place.exists()


@pytest.mark.parametrize(
    ("text", "drop_in", "said"),
    [
        ("", "", "the unit has no SystemCallFilter="),
        (
            f"SystemCallFilter=read \\\n  {CALL}\n",
            "",
            f"allowed by {CALL} at /{FOLDER}/x.service:3",
        ),
        (f"SystemCallFilter=read\nSystemCallFilter=~{CALL}:ENOSYS\n", "", "denied by"),
        ("SystemCallFilter=~@clock\n", "", "denies what it lists, not this"),
        ("SystemCallFilter=read\n", "SystemCallFilter=\n", "the unit has no SystemCallFilter="),
        ("SystemCallFilter=read\n", f"SystemCallFilter={CALL}\n", "x.service.d/a.conf:2"),
    ],
)
def test_what_needs_nothing_is_left(
    text: str, drop_in: str, said: str, shim: Run, tmp_path: Path
) -> None:
    """No filter, a list that allows it, one that denies others, and a denial by its author."""
    place = _unit(tmp_path, text, **({"a": drop_in} if drop_in else {}))
    done = _patch(shim, tmp_path, "--json")
    [*_, call] = json.loads(done.stdout)["calls"]
    assert call["syscall"] == CALL
    assert not call["changed"]
    assert said in call["reason"]
    assert not place.exists()


@pytest.mark.parametrize(
    ("asked", "denying"),
    [("x", "x"), ("x", "other"), ("other", "x"), ("x", "part-"), ("x", "")],
)
def test_a_denial_by_any_name_of_the_unit_stands(
    asked: str, denying: str, shim: Run, tmp_path: Path
) -> None:
    """A link to a unit is another name of it, whose drop-ins systemd reads, too."""
    _unit(tmp_path, "SystemCallFilter=read\n")
    for name in ("other", "part-of"):
        (tmp_path / FOLDER / f"{name}.service").symlink_to("x.service")
    folder = tmp_path / FOLDER / (f"{denying}.service.d" if denying else "service.d")
    folder.mkdir(exist_ok=True)
    (folder / "deny.conf").write_text(f"[Service]\nSystemCallFilter=~{CALL}\n")
    done = shim("--unit", asked, "--root", tmp_path, "--add", CALL, "--json")
    [*_, call] = json.loads(done.stdout)["calls"]
    assert (call["changed"], call["verdict"]) == (False, "explicit-deny")


def test_a_denial_of_a_template_by_its_other_name_stands(tmp_path: Path) -> None:
    """Of all instances, or of this one."""
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    (folder / "y@.service").write_text("[Service]\nSystemCallFilter=read\n")
    (folder / "z@.service").symlink_to("y@.service")
    for number, name in enumerate(("z@.service.d", "z@1.service.d")):
        (folder / name).mkdir()
        (folder / name / f"{number}.conf").write_text("[Service]\nSystemCallFilter=~write\n")
    root = Root(str(tmp_path))
    assert len(unitfilter.read(root, "y@1").entries) == 3
    assert len(unitfilter.read(root, "y@2").entries) == 2


def test_a_set_that_systemd_does_not_tell_may_deny(tmp_path: Path) -> None:
    """It is no leave to add; a list that allows such a set is as good as without it."""
    _unit(tmp_path, "SystemCallFilter=read @strange\nSystemCallFilter=~@strange\n")
    found = unitfilter.read(Root(str(tmp_path)), "x")
    assert found.verdict(CALL, {})[0] == "explicit-deny"
    assert found.verdict(CALL, {"@strange": frozenset()})[0] == "denied-by-default"


def test_drop_ins_that_cannot_be_read_may_deny(shim: Run, tmp_path: Path) -> None:
    """What is not known is no leave to add."""
    _unit(tmp_path, "SystemCallFilter=read\n")
    (tmp_path / FOLDER / "service.d").symlink_to("service.d")
    assert f"/{FOLDER}/service.d" in refused(_patch(shim, tmp_path))


def test_a_name_that_libseccomp_drops_is_told_with_what_helps(shim: Run, tmp_path: Path) -> None:
    """As systemd itself complains of it; a library that knows it is asked for where it is so."""
    place = _unit(tmp_path, "SystemCallFilter=read\n")
    place.write_text("[Service]\nSystemCallFilter=rseq_slice_yield\n")
    dropped = "rseq_slice_yield" in _complaints(tmp_path)
    place.unlink()
    done = shim("--unit", "x", "--root", tmp_path, "--add", "rseq_slice_yield", "--diff")
    assert (b"drops the name: no effect" in done.stderr) == dropped
    assert (b"is what helps" in done.stderr) >= dropped
    assert (done.stdout == b"") == dropped


def test_groups_are_systemds_own() -> None:
    """A set that has another set in it has that one's calls, too."""
    need.program("systemd-analyze")
    sets = unitfilter.groups_here()
    assert {"read", "execve"} <= sets["@system-service"]
    assert "settimeofday" in sets["@clock"]
    assert unitfilter.groups("@a\n    @b\n@b\n    @a\n    read\n")["@a"] == {"read"}


def test_a_template_and_names_that_are_none(shim: Run, tmp_path: Path) -> None:
    """An instance is its template's; a path is no unit, and one that is not there is said so."""
    folder = tmp_path / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    (folder / "y@.service").write_text("[Service]\nSystemCallFilter=read\n")
    assert unitfilter.read(Root(str(tmp_path)), "y@1").allows
    root = ("--root", tmp_path)
    assert refused(shim("--unit", "../y", *root)).startswith("../y: is no name of a service")
    assert refused(shim("--unit", "z", *root)).startswith("z.service: no such unit")
