"""The collection's facts and profiles, on real hosts over ssh."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shim import __version__
from support import hosts
from support.managed import ask
from support.profiles import ALLOW, DOCKER, ERRNO
from support.resources import HEAD

PROFILE = "/etc/docker/seccomp.json"
FOLDERS = ["/etc/docker", "/etc/containers"]
TEXT = json.dumps(DOCKER, indent=1) + "\n"
YAML = f"""{HEAD}  # ours
  defaultAction: {ERRNO}
  syscalls:
  - names: [read]
    action: {ALLOW}
"""
NAMES = ("new", "old", "fixed", "bare", "dying", "locked", "full", "plain", "planned", "untrusted")


@dataclass
class Managed:
    """Hosts, and the inventory that names them and one that nobody answers for."""

    fleet: hosts.Fleet
    inventory: Path

    def __getitem__(self, name: str) -> hosts.ManagedHost:
        return self.fleet[name]

    def ask(self, module: str, *words: str, **more: Any) -> dict[str, dict[str, Any]]:
        """Run a module on hosts."""
        return ask(self.inventory, module, *words, **more)

    def patch(self, name: str, *words: str, **given: Any) -> dict[str, Any]:
        """Ask one host for the state of its profiles."""
        return self.ask("seccomp_shim_profile", *words, hosts=name, given=given)[name]


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    """Yield hosts with a profile that denies by default; ``bare`` has none."""
    scratch = tmp_path_factory.mktemp("fleet")
    with hosts.fleet(scratch, NAMES, small=["full"]) as fleet:
        for each in fleet.values():
            if each.name != "bare":
                each.write(PROFILE, TEXT, 0o640)
            each.states(uretprobe="filtered")
        yield Managed(fleet, fleet.inventory(scratch / "hosts.json", missing=["gone"]))


def _results(told: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return each file's result, the reason where it is none of the runtimes that this host has."""
    results = []
    for each in told["files"]:
        idle = each["effect"] in ("none", "some")
        assert ("no effect" in each["reason"]) == idle
        assert any(each["reason"] in line for line in told["no_effect"]) == idle
        results.append((each["file"], each["result"], "" if idle else each["reason"]))
    return results


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_facts_tell_each_host_apart(managed: Managed) -> None:
    """Every host's own kernel states, runtimes and profiles are told, and nothing is changed."""
    managed["old"].states(uretprobe="absent")
    managed["fixed"].states(uretprobe="exempt", uprobe="exempt")
    before = managed["new"].run("find /etc /opt /usr /var -newer /run/sshd").stdout
    results = managed.ask("seccomp_shim_facts", hosts="new,old,fixed,bare,gone")
    assert results.pop("gone")["unreachable"] is True
    facts = {name: each["ansible_facts"]["seccomp_shim"] for name, each in results.items()}
    states = {name: each["syscalls"]["uretprobe"]["state"] for name, each in facts.items()}
    assert states == {"new": "filtered", "old": "absent", "fixed": "exempt", "bare": "filtered"}
    for name, each in facts.items():
        assert each["version"] == __version__
        assert each["installed"] is None
        assert {path["path"] for path in each["runtimes"]} >= {"/usr/sbin/runc", "/usr/bin/crun"}
        assert [engine["registered"] for engine in each["engines"]] == [False] * 4
        mine = [one["state"] for one in each["profiles"] if one["file"] == PROFILE]
        assert mine == ([] if name == "bare" else ["denies by default"])
    assert managed["new"].run("find /etc /opt /usr /var -newer /run/sshd").stdout == before


def test_calls_that_no_rule_names_get_enosys_where_that_is_asked_for(managed: Managed) -> None:
    """As ``patch --enosys`` does it; a word that cannot be meant is a problem."""
    foretold = managed.patch("plain", "--check", "--diff", path=PROFILE, enosys=["newer"])
    assert foretold["changed"] is True
    assert '"errnoRet": 38' in foretold["said"]
    assert '"clone3"' in foretold["said"]
    wrong = managed.patch("plain", "--check", path=PROFILE, enosys=["uretprobe"])
    assert "to them ENOSYS is as fatal" in wrong["msg"]


def test_patched_twice_is_patched_once_and_rolled_back_is_the_old_file(managed: Managed) -> None:
    """A change is foretold, made, not made again, and rolled back to the byte; each is told."""
    old = TEXT.encode()
    foretold = managed.patch("new", "--check", "--diff", all=True)
    assert foretold["changed"] is True
    assert _results(foretold) == [(PROFILE, "would be patched", "")]
    added = [line for line in foretold["said"].splitlines() if line.startswith("+ ")]
    assert '"uretprobe"' in "".join(added)
    assert managed["new"].read(PROFILE) == old

    made = managed.patch("new", path=PROFILE)
    assert made["changed"] is True
    assert _results(made) == [(PROFILE, "patched", "")]
    assert "+++" not in made["said"]
    new = managed["new"].read(PROFILE)
    assert json.loads(new)["syscalls"][0]["names"] == ["uretprobe"]
    assert managed["new"].run(f"stat -c '%a %U' {PROFILE}").stdout == "640 root\n"
    log = managed["new"].read("/var/log/seccomp-shim/audit.jsonl").splitlines()
    assert [json.loads(line)["run"] for line in log] == [made["run"]]

    assert managed.patch("new", "--diff", all=True)["changed"] is False
    assert managed["new"].read(PROFILE) == new

    foretold = managed.patch("new", "--check", state="rolled_back", all=True)
    assert foretold["changed"] is True
    assert managed["new"].read(PROFILE) == new
    back = managed.patch("new", state="rolled_back", all=True)
    assert _results(back) == [(PROFILE, "rolled back", "")]
    there, back_again = (_checksum(old), _checksum(new)), (_checksum(new), _checksum(old))
    told = [(each["files"][0]["before"], each["files"][0]["after"]) for each in (made, back)]
    assert told == [there, back_again]
    assert managed["new"].read(PROFILE) == old
    assert managed.patch("new", state="rolled_back", all=True)["changed"] is False
    assert managed["new"].read(PROFILE) == old


def test_only_what_was_planned_is_done(managed: Managed) -> None:
    """Held to a plan, a host changes what is still as planned, and tells what is not and why."""
    host = managed["planned"]
    names = ("good", "edited", "gone", "other", "late")
    paths = {name: f"/srv/plan/{name}.json" for name in names}
    for number, path in enumerate(paths.values()):
        host.write(path, TEXT + " " * number)
    foretold = managed.patch("planned", "--check", path="/srv/plan")
    plan = {each["file"]: [each["before"], each["after"]] for each in foretold["files"]}
    assert plan.keys() == set(paths.values())
    assert plan[paths["good"]][0] == _checksum(TEXT.encode())
    plan[paths["other"]][1] = "0" * 64
    del plan[paths["late"]]
    host.write(paths["edited"], TEXT + "\n\n")
    host.run(f"rm {paths['gone']}")
    wanted = [
        (paths["edited"], "skipped", "not as planned: its content has changed since"),
        (paths["gone"], "skipped", "not as planned: it is gone"),
        (paths["good"], "patched", ""),
        (paths["late"], "skipped", "not as planned: it is not in the plan"),
        (paths["other"], "skipped", "not as planned: it would become something else"),
    ]

    held = managed.patch("planned", path="/srv/plan", expected=plan)
    assert (held["failed"], held["changed"]) == (True, True)
    assert sorted(_results(held)) == wanted
    assert sorted(line.partition(":")[0] for line in held["problems"]) == sorted(
        paths[name] for name in ("edited", "gone", "other")
    )
    assert _checksum(host.read(paths["good"])) == plan[paths["good"]][1]
    for number, name in enumerate(names):
        if name in ("late", "other"):
            assert host.read(paths[name]) == (TEXT + " " * number).encode()

    mine = {paths["good"]: plan[paths["good"]]}
    again = managed.patch("planned", path=paths["good"], expected=mine)
    assert (again["failed"], again["changed"]) == (False, False)
    nothing = managed.patch("planned", path=paths["late"], expected={})
    assert (nothing["failed"], nothing["changed"]) == (False, False)


def test_what_was_planned_is_rolled_back_alone(managed: Managed) -> None:
    """Held to a plan, only its files become what they were; one edited since is a failure."""
    host = managed["planned"]
    paths = [f"/srv/back/{name}.json" for name in ("mine", "edited", "other")]
    for number, path in enumerate(paths):
        host.write(path, TEXT + " " * number)
    done = managed.patch("planned", path="/srv/back")
    plan = {each["file"]: [each["before"], each["after"]] for each in done["files"]}
    patched = {path: host.read(path) for path in paths}
    host.write(paths[1], patched[paths[1]] + b"\n")
    del plan[paths[2]]
    back = managed.patch("planned", state="rolled_back", all=True, expected=plan)
    assert (back["failed"], back["changed"]) == (True, True)
    assert [line.partition(":")[0] for line in back["problems"]] == [paths[1]]
    assert host.read(paths[0]) == TEXT.encode()
    assert host.read(paths[1]) == patched[paths[1]] + b"\n"
    assert host.read(paths[2]) == patched[paths[2]]
    mine = {paths[0]: plan[paths[0]]}
    assert not managed.patch("planned", state="rolled_back", all=True, expected=mine)["changed"]


def test_what_nobody_changes_any_more_was_planned_otherwise(managed: Managed) -> None:
    """A file of the plan for which there is no reason any more stays, and that is a failure."""
    managed["planned"].write("/srv/idle.json", TEXT)
    foretold = managed.patch("planned", "--check", path="/srv/idle.json")
    plan = {each["file"]: [each["before"], each["after"]] for each in foretold["files"]}
    managed["planned"].states(uretprobe="absent")
    held = managed.patch("planned", path="/srv/idle.json", expected=plan)
    managed["planned"].states(uretprobe="filtered")
    assert held["failed"] is True
    assert held["msg"] == "/srv/idle.json: not as planned: nothing is to be done"
    assert managed["planned"].read("/srv/idle.json") == TEXT.encode()


def test_a_run_is_rolled_back_by_its_id(managed: Managed) -> None:
    """The id that a run was given rolls back that run alone, whatever else was patched."""
    managed["plain"].write("/srv/own.json", TEXT)
    first = managed.patch("plain", path="/srv/own.json")
    managed.patch("plain", path=PROFILE)
    assert managed.patch("plain", state="rolled_back", run=first["run"])["changed"] is True
    assert managed["plain"].read("/srv/own.json") == TEXT.encode()
    assert managed["plain"].read(PROFILE) != TEXT.encode()
    assert managed.patch("plain", state="rolled_back", run=first["run"])["changed"] is False


def test_a_file_changed_since_is_not_rolled_back(managed: Managed) -> None:
    """What somebody has edited after the patch stays, and the task fails; force overwrites it."""
    managed["plain"].write("/srv/edited.json", TEXT)
    managed.patch("plain", path="/srv/edited.json")
    edited = managed["plain"].read("/srv/edited.json") + b"\n"
    managed["plain"].write("/srv/edited.json", edited)
    refused = managed.patch("plain", state="rolled_back", path="/srv/edited.json")
    assert refused["failed"] is True
    assert refused["msg"].startswith("/srv/edited.json: was changed since its run")
    assert managed["plain"].read("/srv/edited.json") == edited
    managed.patch("plain", state="rolled_back", path="/srv/edited.json", force=True)
    assert managed["plain"].read("/srv/edited.json") == TEXT.encode()


def test_yaml_is_patched_where_python_has_no_yaml(managed: Managed) -> None:
    """A SeccompProfile resource gets its rule, its comments stay: the library travels along."""
    assert (
        "No module named"
        in managed["plain"].run("/usr/bin/python3 -c 'import yaml'", code=1).stderr
    )
    managed["plain"].write("/srv/resource.yaml", YAML)
    done = managed.patch("plain", path="/srv/resource.yaml")
    assert [each["result"] for each in done["files"]] == ["patched"], done
    text = managed["plain"].read("/srv/resource.yaml").decode()
    assert "  # ours\n" in text
    assert "uretprobe" in text


def test_what_cannot_be_patched_is_one_line_and_stays(managed: Managed) -> None:
    """No such file, no profile, a broken one, and a denial by name: told, none of them touched."""
    host = managed["plain"]
    host.write("/srv/broken.json", '{"defaultAction": ')
    host.write("/srv/letter.txt", "Dear all,\n")
    denied = {**DOCKER, "syscalls": [{"names": ["uretprobe"], "action": "SCMP_ACT_KILL"}]}
    host.write("/srv/denied.json", json.dumps(denied))
    for path, why in (
        ("/srv/none.json", "there is no such file"),
        ("/srv/letter.txt", "/srv/letter.txt: "),
        ("/srv/broken.json", "not valid JSON"),
    ):
        result = managed.patch("plain", path=path)
        assert result["failed"] is True
        assert why in result["msg"], result["msg"]
        assert "\n" not in result["msg"]
    left = managed.patch("plain", path="/srv/denied.json")
    assert (left["changed"], left["files"][0]["result"]) == (False, "left alone")
    assert host.read("/srv/broken.json") == b'{"defaultAction": '
    assert json.loads(host.read("/srv/denied.json")) == denied


def test_one_hosts_failure_hides_no_others_result(managed: Managed) -> None:
    """Unreachable, full, without sudo, dying: each is told in a line, the others are patched."""
    host = managed["dying"]
    for number in range(300):
        host.write(f"/etc/containers/{number}.json", TEXT + " " * number)
    managed["locked"].forbid_sudo()
    managed["full"].run("mount -t tmpfs none /tmp")  # else Ansible itself cannot begin
    managed["full"].fill()
    killer = host.die_when("var/lib/seccomp-shim/runs/*")
    results = managed.ask(
        "seccomp_shim_profile",
        hosts="bare,dying,fixed,full,gone,locked,old",
        given={"path": FOLDERS, "when": "always"},
    )
    killer.join()
    assert {name for name, each in results.items() if each["unreachable"]} >= {"gone"}
    assert results["dying"]["unreachable"] or results["dying"]["failed"]
    assert "No space left on device" in results["full"]["msg"]
    assert "sudo" in results["locked"]["msg"]
    assert all("\n" not in each.get("msg", "").strip() for each in results.values()), results
    assert results["old"]["changed"] is True
    assert results["fixed"]["changed"] is True
    assert results["bare"]["changed"] is False
    for name in ("full", "locked"):
        assert managed[name].read(PROFILE) == TEXT.encode()

    host.start()
    host.wait()
    whole = [host.read(f"/etc/containers/{number}.json") for number in range(300)]
    olds = [(TEXT + " " * number).encode() for number in range(300)]
    assert all(now == old or json.loads(now) for now, old in zip(whole, olds, strict=True))
    again = managed.patch("dying", path=FOLDERS, when="always")
    assert not again["failed"], again
    assert any("was killed" in line for line in again["notes"])
    for number, old in enumerate(olds):
        assert host.read(f"/etc/containers/{number}.json") != old
    managed.patch("dying", state="rolled_back", all=True)
    for number, old in enumerate(olds):
        assert host.read(f"/etc/containers/{number}.json") == old


def test_payload_goes_to_a_host_once(managed: Managed) -> None:
    """A second task finds what the first has brought, to which none but root may write."""
    list_it = "find /run/seccomp-shim/payload -mindepth 1 -maxdepth 1 -printf '%f %i %m %U\\n'"
    managed.ask("seccomp_shim_facts", hosts="fixed", given={"profiles": False})
    first = managed["fixed"].run(list_it).stdout
    managed.ask("seccomp_shim_facts", hosts="fixed", given={"profiles": False})
    assert managed["fixed"].run(list_it).stdout == first
    [line] = first.splitlines()
    assert line.split()[2:] == ["755", "0"]
    assert managed["fixed"].run("find /run/seccomp-shim/payload -perm /022").stdout == ""
    assert managed["fixed"].run("ls -A /home/ops/.ansible/tmp").stdout == ""


def test_a_folder_that_others_may_write_to_is_not_believed(managed: Managed) -> None:
    """Root runs no code from where an ordinary user could have put it."""
    managed["untrusted"].run(
        "mkdir -p /run/seccomp-shim/payload; chmod 777 /run/seccomp-shim/payload"
    )
    result = managed.ask("seccomp_shim_facts", hosts="untrusted")["untrusted"]
    assert result["failed"] is True
    assert "can be written to by others" in result["msg"]


def test_facts_need_no_root(managed: Managed) -> None:
    """An ordinary user gets facts, too, and what they need is kept in the user's own cache."""
    result = managed.ask("seccomp_shim_facts", hosts="old", become=False)["old"]
    assert "seccomp_shim" in result["ansible_facts"], result
    assert managed["old"].run("stat -c %a:%U /home/ops/.cache/seccomp-shim").stdout == "700:ops\n"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "exactly one of path, all and run"),
        ({"all": True, "run": "1"}, "exactly one of path, all and run"),
        ({"all": True, "path": ["/a"]}, "exactly one of path, all and run"),
        ({"path": ["/a"], "extra_paths": ["/b"]}, "extra_paths goes with state: patched and all"),
        (
            {"state": "rolled_back", "all": True, "path": ["/a"]},
            "exactly one of path, all and run",
        ),
        ({"run": "1"}, "run goes with state: rolled_back"),
        ({"run": "1", "state": "rolled_back", "expected": {}}, "expected does not go with run"),
        ({"all": True, "expected": {"/a": "abc"}}, "expected: /a needs two checksums"),
    ],
)
def test_contradictions_are_told(managed: Managed, given: dict[str, Any], why: str) -> None:
    """Arguments that say too little or too much are refused in one line."""
    result = managed.patch("fixed", **given)
    assert result["failed"] is True
    assert why in result["msg"]
