"""The verbs find, patch --all and rollback, as an admin calls them."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import runtimes
from shim.transaction.store import whose
from support.fleet import DENYING, KUBELET, Host
from support.profiles import ALLOW, ruled
from support.resources import HEAD, embedded

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a host with a daemon that uses a profile, one that needs nothing, and a resource."""
    host = Host(tmp_path)
    host.write("etc/docker/seccomp.json")
    host.write("etc/docker/daemon.json", '{"seccomp-profile": "/etc/docker/seccomp.json"}')
    host.write(f"{KUBELET}/fine.json", json.dumps(ruled(defaultAction=ALLOW)))
    host.write("etc/kubernetes/p.yaml", HEAD + "  defaultAction: SCMP_ACT_ERRNO\n")
    return host


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    """Return the command of the program, with the audit log in the temporary directory."""
    log = tmp_path / "log"
    log.mkdir()
    command = [sys.executable, "-m", "shim"]
    if os.geteuid() != 0:
        return ["env", f"XDG_STATE_HOME={log}", *command]
    # root's settings and log are the machine's: let the program see others in their place
    script = (
        "if [ -d /etc/seccomp-shim ]; then mount -t tmpfs none /etc/seccomp-shim; fi && "
        "mount -t tmpfs none /var/log && mkdir /var/log/seccomp-shim && "
        'mount --bind "$0" /var/log/seccomp-shim && exec "$@"'
    )
    return ["unshare", "-m", "sh", "-c", script, str(log), *command]


@pytest.fixture
def shim(program: list[str]) -> Run:
    """Run the program where nobody can be asked."""

    def run(*args: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*program, *args],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return run


def everything(host: Host) -> list[str]:
    """Return the options of patch --all for ``host``."""
    return ["patch", "--all", "--when=always", f"--root={host.root}", f"--state={host.state}"]


def test_find(shim: Run, host: Host) -> None:
    """The table has a line a profile; the JSON the same, a document a line."""
    done = shim("find", "--root", str(host.root))
    assert done.returncode == 0
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["PROFILE", "FORMAT", "STATE", "USED", "BY", "WHY"]
    assert [row.split()[0] for row in rows] == [
        "/etc/docker/seccomp.json",
        "/etc/kubernetes/p.yaml",
        f"/{KUBELET}/fine.json",
    ]
    assert "docker daemon (/etc/docker/daemon.json:1)" in rows[0]
    lines = shim("find", "--json", f"--root={host.root}").stdout.splitlines()
    documents = [json.loads(line) for line in lines]
    assert [each["state"] for each in documents] == [
        "denies by default",
        "denies by default",
        "allows",
    ]
    assert documents[0]["used_by"] == [
        {"who": "docker daemon", "where": "/etc/docker/daemon.json:1"}
    ]
    assert documents[1]["profile"] == "SeccompProfile mine"
    assert documents[0]["calls"]["uretprobe"]["verdict"] == "denied-by-default"


def test_find_nothing(shim: Run, tmp_path: Path) -> None:
    """Where nothing is found the verb says so; where there is no root it is an error."""
    (tmp_path / "empty").mkdir()
    assert shim("find", f"--root={tmp_path}/empty").stdout == "no profile was found\n"
    done = shim("find", f"--root={tmp_path}/none")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_all_shows_the_plan_first(shim: Run, host: Host) -> None:
    """Without a yes nothing is changed: not where nobody can be asked, not by --check or --diff."""
    before = host.contents()
    done = shim(*everything(host))
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert "2 of 3 files would change" in done.stdout
    rows = done.stdout.splitlines()
    assert "add uretprobe, uprobe" in rows[1]
    assert "leave alone" in rows[3]
    assert shim(*everything(host), "--check").returncode == 1
    done = shim(*everything(host), "--diff")
    assert done.returncode == 0
    assert done.stdout.count("+++ ") == 2
    assert "+    - action: SCMP_ACT_ALLOW" in done.stdout
    documents = [json.loads(line) for line in shim(*everything(host), "--json").stdout.splitlines()]
    assert [each["adds"] for each in documents] == [["uretprobe", "uprobe"]] * 2 + [[]]
    assert host.contents() == before
    assert not Path(host.state).exists()


def test_all_and_back(shim: Run, host: Host) -> None:
    """All is changed in one run, listed, rolled back, and rolled back again."""
    before = host.contents()
    done = shim(*everything(host), "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    run = done.stdout.splitlines()[-1].removeprefix("2 files changed; run ")
    patched = host.contents()
    assert sum(patched[name] != before[name] for name in before) == 2
    assert shim(*everything(host), "--yes", "--check").returncode == 0
    state = f"--state={host.state}"
    listed = shim("rollback", "--list", state).stdout.splitlines()
    assert listed[1].split() == [run, "patch", whose(), "2", "0", "0", "done"]
    unnamed = shim("rollback", state)
    assert unnamed.returncode == 2
    assert f"--last undoes run {run}, a patch of 2 files; --last, --id ID" in unnamed.stderr
    dry = shim("rollback", "--last", "--dry-run", state)
    assert len(dry.stdout.splitlines()) == 2
    assert host.contents() == patched
    done = shim("rollback", "--id", run, state)
    assert done.returncode == 0
    assert done.stdout.startswith("2 files rolled back; run ")
    assert host.contents() == before
    assert shim("rollback", str(host.root / "etc/kubernetes/p.yaml"), state).returncode == 0
    assert host.contents()["etc/kubernetes/p.yaml"] == patched["etc/kubernetes/p.yaml"]
    documents = shim("rollback", "--list", "--json", state).stdout.splitlines()
    assert [len(json.loads(line)["files"]) for line in documents] == [2, 2, 1]


def test_named_and_no_profile(shim: Run, host: Host) -> None:
    """What the user names and is no profile makes status 2; the others are done all the same."""
    host.write("srv/notes.txt", "nothing")
    for path in ("/srv/notes.txt", "/srv/none.json"):
        done = shim("find", f"--root={host.root}", path)
        assert done.returncode == 2
        [row] = [row for row in done.stdout.splitlines() if row.startswith(path)]
        assert "invalid" in row
    done = shim(*everything(host), "--yes", "--extra-path", "/srv/notes.txt")
    assert done.returncode == 2
    assert "2 files changed" in done.stdout


LEFT = "was changed since its run and is left alone (--force overwrites it)"


def test_changed_since(shim: Run, host: Host) -> None:
    """A file changed since its run is told and left alone, with exit status 1, unless forced."""
    shim(*everything(host), "--yes")
    path = host.root / "etc/docker/seccomp.json"
    path.write_bytes(DENYING + b"\n")
    done = shim("rollback", "--last", f"--state={host.state}")
    assert done.returncode == 1
    assert done.stderr == f"seccomp-shim rollback: {path}: {LEFT}\n"
    again = shim("rollback", str(path), f"--state={host.state}")
    assert (again.returncode, again.stdout) == (1, "0 files rolled back, 1 file left alone\n")
    assert again.stderr == done.stderr
    dry = shim("rollback", "--id=1", "--force", "--dry-run", f"--state={host.state}")
    assert dry.stdout.count(": would get back what it held before the run (SHA-256 ") == 1
    assert path.read_bytes() == DENYING + b"\n"
    assert shim("rollback", "--id=1", "--force", f"--state={host.state}").returncode == 0
    assert path.read_bytes() == DENYING


def test_killed_run_is_told(shim: Run, host: Host) -> None:
    """The next run says of a killed one how many files are old and new, and clears its drafts."""
    shim(*everything(host), "--yes")
    [journal] = Path(host.state, "runs").iterdir()
    lines = journal.read_text().splitlines()
    whole = [line for line in lines if "state" not in line and "end" not in line]
    journal.write_text("\n".join(whole) + '\n{"n": 0, "sta')
    entry = json.loads(whole[1])
    Path(entry["draft"]).write_text("half")
    done = shim("rollback", "--list", f"--state={host.state}")
    assert "was killed: 2 files are new, 0 old" in done.stderr
    assert done.stdout.splitlines()[1].split()[-1] == "killed"
    assert not Path(entry["draft"]).exists()
    assert shim("rollback", "--list", f"--state={host.state}").stderr == ""


def test_asked_on_a_terminal(host: Host, program: list[str]) -> None:
    """On a terminal the plan is followed by a question, and a yes by a bar."""
    for answer, changed in ((b"n\n", False), (b"y\n", True)):
        main, side = pty.openpty()
        command = [*program, *everything(host)]
        with subprocess.Popen(command, stdin=side, stdout=side, stderr=side) as process:
            os.close(side)
            os.write(main, answer)
            shown = b""
            while True:
                try:
                    shown += os.read(main, 4096)
                except OSError:  # how a terminal says that nobody is there any more
                    break
        os.close(main)
        assert b"Change 2 files? [y/N]" in shown
        assert process.returncode == (0 if changed else 1)
        assert (b"2 of 2 files" in shown) is changed
        assert (b"uretprobe" in (host.root / "etc/docker/seccomp.json").read_bytes()) is changed


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["patch"], "no file was named"),
        (["patch", "--yes", "x"], "are for --all"),
        (["patch", "--all", "-"], "standard input"),
        (["patch", "--all", "--root=/nowhere"], "/nowhere: is no directory"),
        (["rollback"], "nothing was named"),
        (["rollback", "--last", "--state=/nowhere"], "nothing has been changed from here"),
    ],
    ids=range(6),
)
def test_bad_calls(shim: Run, words: list[str], line: str) -> None:
    """What cannot be done is said in one line, exit status 2."""
    done = shim(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert line in done.stderr


def test_a_path_with_all_leaves_the_others_alone(shim: Run, host: Host) -> None:
    """With a PATH patch --all changes that and nothing else; --extra-path does that, too."""
    mine = host.write("srv/mine.json")
    before = host.contents()
    assert shim(*everything(host), "--yes", "/srv").returncode == 0
    after = host.contents()
    assert {name for name in after if after[name] != before[name]} == {"srv/mine.json"}
    mine.write_bytes(DENYING)
    done = shim(*everything(host), "--yes", "--extra-path", "/srv")
    assert done.stdout.splitlines()[-1].startswith("3 files changed")


def test_one_file_of_yaml(shim: Run, tmp_path: Path) -> None:
    """Patch and verify take YAML; each profile of a stream is named in what they say."""
    path, after = tmp_path / "p.yaml", tmp_path / "after.yaml"
    # A call of a larger number: runc's line of ENOSYS stays where it is, in all user lands.
    one = HEAD + "  defaultAction: SCMP_ACT_ERRNO\n  syscalls:\n  - names:\n    - clone3\n"
    one += "    action: SCMP_ACT_ALLOW\n"
    path.write_text(one + "---\n" + embedded(DENYING.decode().replace("write", "clone3"), "|"))
    done = shim("patch", "--when=always", f"--runtime={runtimes.KNOWING}", str(path))
    assert f"{path} (SeccompProfile mine): uretprobe is now allowed" in done.stderr
    after.write_text(done.stdout)
    assert len(done.stderr.splitlines()) == 4
    done = shim("verify", str(path), str(after))
    assert done.returncode == 0
    assert done.stdout.count("Proven: newly allowed are uprobe, uretprobe") == 2
    reports = json.loads(shim("verify", "--json", str(path), str(after)).stdout)
    assert [report["verdict"] for report in reports] == ["catalogue"] * 2
    loosened = after.read_text().replace("- uprobe", "- mount")
    after.write_text(loosened)
    assert shim("verify", str(path), str(after)).returncode == 1
    after.write_text(one)
    assert "holds 2 profiles" in shim("verify", str(path), str(after)).stderr
    report = json.loads(shim("patch", "--json", "--when=always", str(path)).stdout)
    assert [each["profile"] for each in report["files"][0]["profiles"]] == [
        "SeccompProfile mine",
        "ConfigMap profiles data/docker.json",
    ]
    assert (
        shim("patch", "-i", "--when=always", f"--state={tmp_path}/state", str(path)).returncode == 0
    )
    assert path.read_text().count("uretprobe") == 2
