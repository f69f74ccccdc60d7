"""No verb calls allowed what the runtimes of this host drop."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import viewed
from cli.runtimes import telling
from support import need
from support.fleet import DENYING
from support.profiles import ALLOW, DOCKER

OLD, NEW = "2.5.4", "2.6.1"
STEP = "seccomp-shim install ENGINE --default"
ALLOWING = json.dumps(
    {**DOCKER, "syscalls": [{"names": ["uretprobe", "uprobe"], "action": ALLOW}]}
).encode()
PROFILE = "/run/p/p.json"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shim(tmp_path: Path) -> Run:
    """Run a module in a view of this machine with one profile, and with runtimes that tell."""
    need.root()

    def run(
        *words: str, profile: bytes = DENYING, stdin: str = "", **runtimes: str
    ) -> "subprocess.CompletedProcess[str]":
        environment = telling(tmp_path / "bin", **runtimes)
        return viewed.run(tmp_path, words, {PROFILE: profile}, stdin, environment)

    return run


def the_profile(done: "subprocess.CompletedProcess[str]") -> Any:
    """Return the document of the one profile; systemd's units have filters of their own."""
    [line] = [line for line in done.stdout.splitlines() if "/p.json" in line]
    return json.loads(line)


def patch(shim: Run, *words: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    """Patch, whatever the kernel."""
    done = shim("-m", "shim", "patch", "--when=always", *words, **more)
    assert done.returncode == 0
    return done


def test_patch_says_no_effect_and_what_helps(shim: Run) -> None:
    """Where every runtime drops the names no line says allowed; the next step is told, once."""
    said = patch(shim, "-i", PROFILE, runc=OLD, crun=OLD).stderr
    assert "allowed" not in said
    assert said.count("uretprobe: a rule was added, with no effect: ") == 1
    assert said.count("drop the name; the call stays denied by the default action") == 2
    assert "/bin/runc (libseccomp 2.5.4) and " in said
    assert said.count(STEP) == 1
    again = patch(shim, "--check", PROFILE, profile=ALLOWING, runc=OLD, crun=OLD)
    assert "allowed already by the rule /syscalls/0; no effect: " in again.stderr


def test_patch_all_says_what_helps_each_time(shim: Run) -> None:
    """A diff, and a file that has the names already, have the reason and the next step too."""
    done = patch(shim, "--all", "--diff", PROFILE, runc=OLD, crun=OLD)
    assert f"{PROFILE}: uretprobe, uprobe: no effect: " in done.stderr
    assert STEP in done.stderr
    for words in (["--diff"], ["--yes"], ["--check"]):
        done = patch(shim, "--all", *words, PROFILE, profile=ALLOWING, runc=OLD, crun=OLD)
        assert "no effect: " in done.stdout + done.stderr
        assert done.stderr.count(STEP) == 1


def test_patch_names_the_runtime_that_drops(shim: Run) -> None:
    """Where one runtime knows the names and the other does not, it is said which."""
    said = patch(shim, "--diff", PROFILE, runc=OLD, crun=NEW).stderr
    assert "uretprobe would be allowed, no effect under " in said
    assert "/bin/runc (libseccomp 2.5.4): dropped there" in said
    assert "/bin/crun" not in said
    assert STEP in said


def test_patch_says_allowed_where_it_is(shim: Run) -> None:
    """Where every runtime knows the names they are allowed, and nothing else is to be done."""
    said = patch(shim, "-i", PROFILE, runc=NEW, crun=NEW).stderr
    assert "uretprobe is now allowed, was denied" in said
    assert "effect" not in said
    assert STEP not in said


def test_the_audit_log_says_no_effect(shim: Run) -> None:
    """A line of the log claims no permission that no runtime here gives."""
    script = (
        "import subprocess, sys; subprocess.run([sys.executable, '-m', 'shim', 'patch', "
        "'--when=always', *sys.argv[1:]], check=True); "
        "print(open('/var/log/seccomp-shim/audit.jsonl').read())"
    )
    for words in (["-i", PROFILE], ["--all", "--yes", PROFILE]):
        lines = shim("-c", script, *words, runc=OLD, crun=OLD).stdout.splitlines()
        logged = [json.loads(line) for line in lines if line.startswith("{")]
        assert {line["after"] for line in logged} == {"no effect"}
        assert all("drop the name" in line["reason"] for line in logged)


def test_patch_all_shows_it_in_the_plan(shim: Run) -> None:
    """The plan says no effect beside what it adds; its JSON has the word."""
    done = patch(shim, "--all", "--yes", PROFILE, runc=OLD, crun=OLD)
    [row] = [line for line in done.stdout.splitlines() if line.startswith(PROFILE)]
    assert "add uretprobe, uprobe" in row
    assert "uretprobe, uprobe: no effect: " in row
    assert STEP in done.stderr
    line = the_profile(patch(shim, "--all", "--json", PROFILE, runc=OLD, crun=OLD))
    assert line["effects"] == {"uretprobe": "none", "uprobe": "none"}


@pytest.mark.parametrize(
    ("runtimes", "state", "effect"),
    [
        ({"runc": OLD, "crun": OLD}, "no effect", "none"),
        ({"runc": OLD, "crun": NEW}, "allows", "some"),
        ({"runc": NEW, "crun": NEW}, "allows", "all"),
        ({"runc": "", "crun": ""}, "allows", "unknown"),
    ],
)
def test_find_knows_the_runtimes(
    shim: Run, runtimes: dict[str, str], state: str, effect: str
) -> None:
    """A profile that names the calls allows them only where a runtime here knows the names."""
    done = shim("-m", "shim", "find", "--json", PROFILE, profile=ALLOWING, **runtimes)
    told = the_profile(done)
    assert (told["state"], told["calls"]["uretprobe"]["effect"]) == (state, effect)
    assert ("no effect" in told["reason"]) == (effect in ("none", "some"))


def test_find_of_another_root_does_not_guess(shim: Run) -> None:
    """The runtimes here say nothing about a profile of another system."""
    copy = "import shutil; shutil.copytree('/run/p', '/run/root/etc/docker'); "
    find = "from shim.cli import main; main(['find', '--json', '--root=/run/root'])"
    done = shim("-c", copy + find, profile=ALLOWING, runc=OLD, crun=OLD)
    told = json.loads(done.stdout)
    assert (told["state"], told["calls"]["uretprobe"]["effect"]) == ("allows", "unknown")


def ask(shim: Run, question: dict[str, Any], **more: Any) -> Any:
    """Ask the agent what it does on a managed host."""
    script = "from shim.agent.main import main; main()"
    return json.loads(shim("-c", script, stdin=json.dumps(question), **more).stdout)


@pytest.mark.parametrize("check", [True, False])
def test_a_managed_host_says_it_for_itself(shim: Run, check: bool) -> None:
    """What fleet and Ansible get for each file: the word, the reason, a line to warn with."""
    how = {"everything": True, "when": "always", "override_deny": False, "diff": False}
    question = {"do": "patched", "paths": [], "extra_paths": [PROFILE], "check": check, **how}
    answer = ask(shim, question, runc=OLD, crun=OLD)
    assert answer["changed"] is True
    [file] = answer["files"]
    assert (file["result"], file["effect"]) == ("would be " * check + "patched", "none")
    assert "uretprobe, uprobe: no effect: " in file["reason"]
    assert answer["no_effect"][0].startswith(f"{PROFILE}: ")
    assert STEP in answer["no_effect"][-1]
    answer = ask(shim, question, runc=NEW, crun=NEW)
    assert (answer["files"][0]["effect"], answer["no_effect"]) == ("all", [])


def test_facts_tell_what_a_profile_does_there(shim: Run) -> None:
    """The facts of a host judge its profiles by its own runtimes."""
    facts = ask(
        shim, {"do": "facts", "extra_paths": [PROFILE]}, profile=ALLOWING, runc=OLD, crun=OLD
    )
    [profile] = [each for each in facts["profiles"] if each["format"] != "systemd"]
    assert profile["state"] == "no effect"
    assert [each["libseccomp"] for each in facts["runtimes"]] == [OLD, OLD]


def test_verify_names_the_runtimes_that_drop(shim: Run) -> None:
    """A proof for all names known has a line where that is not so here; one for a runtime not."""
    script = (
        "import json, sys; from shim.cli import main; p = json.load(open('/run/p/p.json')); "
        "q = dict(p, syscalls=[]); json.dump(q, open('/run/p/q.json', 'w')); "
        "sys.exit(main(['verify', '/run/p/q.json', '/run/p/p.json', *sys.argv[1:]]))"
    )
    done = shim("-c", script, profile=ALLOWING, runc=OLD, crun=OLD)
    [line] = [line for line in done.stdout.splitlines() if "--runtime" in line]
    assert "/bin/crun (libseccomp 2.5.4) drop u" in line
    assert "/bin/runc proves what is loaded there." in line
    for words, runtimes in ((["--runtime=runc"], (OLD, OLD)), ([], (NEW, NEW))):
        runc, crun = runtimes
        done = shim("-c", script, *words, profile=ALLOWING, runc=runc, crun=crun)
        assert "Proven: " in done.stdout
        assert "drop u" not in done.stdout
