"""``patch --enosys`` and ``verify --enosys``, as an admin calls them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.patching import Run, logged, refused
from shim import cli
from support.modelled import docker
from support.profiles import DOCKER

CRUN = ("--runtime", "crun", "--when", "needed")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return Docker 20.10.0's built-in profile in a file."""
    path = tmp_path / "old.json"
    path.write_text(json.dumps(docker("20.10.0"), indent=2))
    return path


def test_newer_calls_get_enosys_and_the_epoch_is_told(shim: Run, old: Path) -> None:
    """One rule, first; what the profile passes over is told, and how it would get the same."""
    done = shim(*CRUN, "--enosys", "newer", old.name)
    [rule, *rest] = json.loads(done.stdout)["syscalls"]
    assert rest == docker("20.10.0")["syscalls"]
    assert (rule["action"], rule["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    assert "fchmodat2" in rule["names"]
    assert "clone3" not in rule["names"]
    assert "includes" not in rule
    said = done.stderr.decode()
    assert "and 29 more get ENOSYS, not EPERM; they stay refused; no rule names them" in said
    assert "its newest is faccessat2 (439); open_tree, move_mount, fsopen and 5 more are" in said
    assert "under crun 15 of these calls from statmount on stay EPERM" in said


def test_a_call_by_name_and_what_a_rule_names(shim: Run, old: Path) -> None:
    """The call that is passed over is answered otherwise, the one that is allowed stays so."""
    done = shim(*CRUN, "--enosys", "clone3", "--enosys", "openat2", "--json", old.name)
    [report] = json.loads(done.stdout)["files"]
    calls = {each["syscall"]: each for each in report["calls"]}
    assert calls["clone3"]["verdict"] == "unnamed"
    assert calls["clone3"]["changed"]
    assert calls["openat2"]["reason"] == "a rule names it"
    assert not calls["openat2"]["changed"]
    assert refused(shim("--enosys", "uprobe", old.name)).startswith("uprobe: the kernel makes")
    assert refused(shim("--enosys", "clone33", old.name)).startswith("clone33: --enosys does not")


def test_verify_proves_it_where_it_is_asked_to(
    shim: Run, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --enosys another errno is a difference; with it a call that a rule names still is."""
    new = tmp_path / "new.json"
    new.write_bytes(shim(*CRUN, "--enosys", "unnamed", old.name).stdout)
    assert cli.main(["verify", str(old), str(new)]) == 1
    capsys.readouterr()
    assert cli.main(["verify", "--enosys", str(old), str(new)]) == 0
    out = capsys.readouterr().out
    assert "newly allowed are no calls, 40 calls that no rule names get ENOSYS" in out
    tree = docker("20.10.0")
    tree["syscalls"][0]["names"].remove("openat2")
    tree["syscalls"].insert(0, {"names": ["openat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
    new.write_text(json.dumps(tree))
    assert cli.main(["verify", "--enosys", str(old), str(new)]) == 1


def test_in_place_is_logged_and_rolled_back(shim: Run, old: Path, log: Path) -> None:
    """One line says which calls get ENOSYS; the second run finds nothing to do."""
    before = old.read_bytes()
    assert shim(*CRUN, "--enosys", "unnamed", "-i", old.name).returncode == 0
    [line] = logged(log)
    assert (line["event"], line["before"], line["after"]) == ("patch", "unnamed", "ENOSYS")
    assert {"clone3", "fchmodat2"} <= set(line["syscall"].split(","))
    assert "faccessat2" not in line["syscall"]
    assert shim(*CRUN, "--enosys", "unnamed", "--check", old.name).returncode == 0
    back = [sys.executable, "-m", "shim", "rollback", "--state", str(log / "state"), str(old)]
    script = 'mount --bind "$0" /var/log && exec "$@"'
    folder = log.parent / "var-log"
    (folder / "seccomp-shim").mkdir(parents=True)
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, str(folder), *back], check=False)
    assert done.returncode == 0
    assert old.read_bytes() == before


def test_yaml_gets_the_rule_too(shim: Run, tmp_path: Path) -> None:
    """A SeccompProfile resource, and a JSON profile inside a ConfigMap."""
    (tmp_path / "p.yaml").write_text(
        "apiVersion: security-profiles-operator.x-k8s.io/v1beta1\n"
        "kind: SeccompProfile\nmetadata:\n  name: a\nspec:\n"
        "  defaultAction: SCMP_ACT_ERRNO\n  syscalls:\n"
        "  - action: SCMP_ACT_ALLOW\n    names:\n    - read\n    - faccessat2\n"
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\ndata:\n"
        f"  p.json: '{json.dumps(DOCKER)}'\n"
    )
    done = shim(*CRUN, "--enosys", "newer", "--diff", "p.yaml")
    assert done.returncode == 0
    added = [line for line in done.stdout.decode().splitlines() if line.startswith("+")]
    assert sum("errnoRet" in line for line in added) == 2
    assert "+    - fchmodat2" in added


def test_all_tells_how_many(shim: Run, old: Path) -> None:
    """The plan has a number, not forty names."""
    done = shim("--all", *CRUN, "--enosys", "unnamed", "--check", str(old))
    assert done.returncode == 1
    assert b"ENOSYS for 40 calls" in done.stdout
