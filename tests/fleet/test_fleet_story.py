"""The fleet verbs on real hosts over ssh, of which some are in every trouble there is."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import hosts
from support.operator import Operator
from support.profiles import ALLOW, DOCKER, ERRNO
from support.resources import HEAD

PROFILE = "/etc/docker/seccomp.json"
LATER = "/etc/docker/later.json"
KUBELET = "/var/lib/kubelet/seccomp"
TEXT = json.dumps(DOCKER, indent=1) + "\n"
DENYING = json.dumps({**DOCKER, "syscalls": [{"names": ["uretprobe"], "action": ERRNO}]})
YAML = f"""{HEAD}  # ours
  defaultAction: {ERRNO}
  syscalls:
  - names: [read]
    action: {ALLOW}
"""
NAMES = (
    *("new", "yaml", "old", "fixed", "bare", "denied"),
    *("edited", "late", "locked", "full", "dying", "leaving"),
)
MANY = 600


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts.Fleet]:
    """Yield hosts with kernels, profiles and troubles of their own."""
    with hosts.fleet(tmp_path_factory.mktemp("fleet"), NAMES, small=["full"]) as fleet:
        for each in fleet.values():
            each.states(uretprobe="filtered")
            if each.name not in {"bare", "yaml", "denied"}:
                each.write(PROFILE, TEXT, 0o640)
        fleet["old"].states(uretprobe="absent")
        fleet["fixed"].states(uretprobe="exempt", uprobe="exempt")
        fleet["yaml"].write("/srv/k8s/profile.yaml", YAML)
        fleet["denied"].write(PROFILE, DENYING)
        for number in range(MANY):
            fleet["dying"].write(f"{KUBELET}/{number}.json", TEXT + " " * number)
        fleet["full"].run("mount -t tmpfs none /tmp")  # Ansible's own files: see the inventory
        fleet["locked"].forbid_sudo()
        yield fleet


@pytest.fixture(scope="module")
def operator(fleet: hosts.Fleet) -> Operator:
    """Return who manages them, and one that nobody answers for."""
    inventory = fleet.inventory(fleet.folder / "hosts.json", missing=["gone"])
    document = json.loads(inventory.read_text())
    document["all"]["hosts"]["full"]["ansible_remote_tmp"] = "/tmp/ansible"
    inventory.write_text(json.dumps(document))
    return Operator(inventory, fleet.folder / "state")


def _profiles(fleet: hosts.Fleet) -> dict[str, bytes]:
    """Return what every host's profile is now."""
    known = {name: fleet[name].path(PROFILE) for name in NAMES if name not in {"bare", "yaml"}}
    return {name: path.read_bytes() for name, path in known.items()}


def test_a_fleet_in_every_trouble(fleet: hosts.Fleet, operator: Operator) -> None:
    """Asked, planned for, changed and rolled back, each host ends as it must and is told of so."""
    before = _profiles(fleet)
    asked = operator("facts", "--extra-path", "/srv/k8s", code=1)
    assert asked.results() == {
        **dict.fromkeys(NAMES, "asked"),
        "locked": "failed",
        "gone": "unreachable",
    }
    assert asked.lines["locked"]["reason"] == "Missing sudo password"
    assert "Connection refused" in asked.lines["gone"]["reason"]
    report = operator.report()
    assert {name: each["verdict"] for name, each in report.items()} == {
        **dict.fromkeys(NAMES, "exposed"),
        "old": "not affected",
        "fixed": "not affected",
        "locked": "failed",
        "gone": "unreachable",
    }
    assert "1 profile denies by default" in report["new"]["why"]
    assert "1 profile denies by name" in report["denied"]["why"]
    assert report["dying"]["profiles"]["denies by default"] == MANY + 1

    planned = operator("plan")
    assert planned.results() == {
        **{name: "would change" for name in NAMES if name not in {"locked", "bare", "old"}},
        "denied": "nothing to do",
        "bare": "nothing to do",
        "old": "nothing to do",
    }
    assert planned.lines["denied"]["reason"].startswith("its profiles deny the calls by name")
    assert planned.lines["bare"]["reason"] == "none of its profiles denies the calls"
    assert planned.lines["old"]["reason"] == "its kernel has none of the calls"
    assert '+    "uretprobe"' in planned.lines["new"]["diff"]
    assert "seccomp-shim install ENGINE --default" in planned.lines["new"]["no_effect"][-1]
    assert _profiles(fleet) == before

    _bring_trouble(fleet)
    killer = fleet["dying"].die_when("var/lib/seccomp-shim/runs/*")
    applied = operator("apply", "--yes", "--no-verify", code=1)
    killer.join()
    results = applied.results()
    assert results.pop("dying") in {"failed", "unreachable"}
    assert results == {
        **dict.fromkeys(("new", "yaml", "fixed", "late"), "changed"),
        "edited": "failed",
        "full": "failed",
        "leaving": "unreachable",
    }
    assert "content has changed since" in applied.lines["edited"]["reason"]
    assert "No space left on device" in applied.lines["full"]["reason"]
    [unplanned] = [each for each in applied.lines["late"]["files"] if each["file"] == LATER]
    assert unplanned["reason"] == "not as planned: it is not in the plan"
    assert fleet["late"].read(LATER) == TEXT.encode()
    after = _profiles(_alive(fleet, "leaving", "dying"))
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"new", "fixed", "late", "edited"}
    assert after["edited"] == before["edited"] + b"\n"
    assert b"  # ours\n" in fleet["yaml"].read("/srv/k8s/profile.yaml")

    report = operator.report()
    assert {name: each["verdict"] for name, each in report.items()} == {
        **dict.fromkeys(("new", "yaml", "late", "bare", "denied"), "exposed"),
        **dict.fromkeys(("old", "fixed"), "not affected"),
        **dict.fromkeys(("edited", "full", "locked"), "failed"),
        "dying": applied.results()["dying"],
        "leaving": "unreachable",
        "gone": "unreachable",
    }
    # The profile names it now; the runtimes' libseccomp drops the name all the same.
    assert "denies by default" not in report["new"]["why"]
    assert "install the wrapper" in report["new"]["why"]
    assert report["new"]["profiles"]["no effect"] == 1
    [change] = report["new"]["changes"]
    [file] = change["files"]
    assert (file["file"], file["result"], file["effect"]) == (PROFILE, "patched", "none")
    assert "no effect: " in file["reason"]
    assert '+    "uretprobe"' in change["diff"]

    _roll_back(fleet, operator, before)


def _bring_trouble(fleet: hosts.Fleet) -> None:
    """Let happen what happens between a plan and its day."""
    fleet["edited"].write(PROFILE, TEXT + "\n", 0o640)
    fleet["late"].write(LATER, TEXT)
    fleet["full"].fill()
    fleet["leaving"].kill()


def _alive(fleet: hosts.Fleet, *names: str) -> hosts.Fleet:
    """Boot hosts again."""
    for name in names:
        fleet[name].start()
        fleet[name].wait()
    return fleet


def _roll_back(fleet: hosts.Fleet, operator: Operator, before: dict[str, bytes]) -> None:
    """Take everything back, on hosts that were never heard of again, too."""
    back = operator("rollback", "--yes", "--no-verify", code=1)
    assert back.results() == {
        **dict.fromkeys(("new", "yaml", "fixed", "late"), "rolled back"),
        "dying": back.results()["dying"],
        # It never was changed: what stands there now is somebody else's.
        "edited": "unchanged",
        "full": "failed",
        "leaving": "unchanged",
    }
    # As it died before or after the first of its files was new.
    assert back.results()["dying"] in {"rolled back", "unchanged"}
    assert "No space left on device" in back.lines["full"]["reason"]
    assert any("was killed" in line for line in back.lines["dying"]["notes"])
    after = _profiles(fleet)
    assert after.pop("edited") == TEXT.encode() + b"\n"
    assert after == {name: each for name, each in before.items() if name != "edited"}
    for number in range(MANY):
        whole = fleet["dying"].read(f"{KUBELET}/{number}.json")
        assert whole == (TEXT + " " * number).encode()
    assert fleet["yaml"].read("/srv/k8s/profile.yaml") == YAML.encode()
    fleet["full"].path("/filler").unlink()
    again = operator("rollback", "--yes", "--no-verify")
    assert again.results() == {"full": "unchanged"}
    verdicts = {name: each["verdict"] for name, each in operator.report().items()}
    assert verdicts["new"] == "exposed"
    assert "denies by default" in operator.report()["new"]["why"]


def test_the_table_says_it_too(operator: Operator) -> None:
    """What a person is shown names every host, the most urgent first, and every run."""
    shown = operator.shown("report")
    lines = shown.splitlines()
    assert lines[0].split() == ["HOST", "VERDICT", "KERNEL", "CHANGED", "WHY"]
    assert {line.split()[0] for line in lines[1 : len(NAMES) + 2]} == {*NAMES, "gone"}
    assert lines[1].split()[1] == "exposed"
    assert any(line.split()[1:2] == ["rollback"] for line in lines), shown


def test_a_page_is_written_whole(operator: Operator, tmp_path: Path) -> None:
    """The page names every host; where it cannot be written nothing is left."""
    page = tmp_path / "report.html"
    operator.shown("report", "--html", str(page))
    text = page.read_text()
    assert all(name in text for name in NAMES)
    told = operator.shown("report", "--html", str(tmp_path / "none/report.html"), code=2)
    assert "none/report.html: cannot be written: No such file or directory" in told
    assert list(tmp_path.iterdir()) == [page]
