"""The verb patch, as an admin calls it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.patching import ALWAYS, BEFORE, Run, refused
from shim.profile.document import MAX_BYTES
from support import need
from support.profiles import ALLOW, DOCKER, ERRNO, LAYOUTS, changed, ruled

ADDED_LINES = 13


def test_prints(shim: Run, profile: Path) -> None:
    """The patched profile goes to standard output, the reasons to standard error."""
    result = shim(*ALWAYS, profile.name)
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == len(BEFORE.splitlines()) + ADDED_LINES
    assert json.loads(result.stdout)["syscalls"][1:] == DOCKER["syscalls"]
    assert result.stderr.decode().splitlines() == [
        f"p.json: {name} is now allowed, was denied by the default action SCMP_ACT_ERRNO only"
        for name in ("uretprobe", "uprobe")
    ]
    assert profile.read_text() == BEFORE


def test_standard_input(shim: Run) -> None:
    """A dash reads standard input; the second run prints what it got."""
    once = shim(*ALWAYS, "-", stdin=BEFORE.encode())
    assert once.stdout.decode() != BEFORE
    twice = shim(*ALWAYS, "-", stdin=once.stdout)
    assert twice.stdout == once.stdout
    assert b"standard input: uretprobe is left alone: allowed already by" in twice.stderr


def test_diff(shim: Run, profile: Path, tmp_path: Path) -> None:
    """The diff writes nothing, adds lines only, and patch(1) or git would make it."""
    result = shim(*ALWAYS, "--diff", profile.name)
    assert result.returncode == 0
    lines = result.stdout.decode().splitlines()
    assert lines[:2] == ["--- p.json", "+++ p.json"]
    assert sum(line.startswith("@@") for line in lines) == 1
    assert sum(line.startswith("+") for line in lines[2:]) == ADDED_LINES
    assert not [line for line in lines[2:] if line.startswith("-")]
    assert profile.read_text() == BEFORE
    expected = shim(*ALWAYS, profile.name).stdout
    git = need.program("git")
    subprocess.run([git, "apply", "-p0"], input=result.stdout, cwd=tmp_path, check=True)
    assert profile.read_bytes() == expected


def test_diff_without_final_newline(shim: Run, tmp_path: Path) -> None:
    """A file that ends without a newline gives a diff that can be applied."""
    path = tmp_path / "p.json"
    path.write_text(LAYOUTS["minified"](DOCKER))
    result = shim(*ALWAYS, "--diff", path.name)
    assert result.stdout.count(b"\n\\ No newline at end of file\n") == 2
    expected = shim(*ALWAYS, path.name).stdout
    git = need.program("git")
    subprocess.run([git, "apply", "-p0"], input=result.stdout, cwd=tmp_path, check=True)
    assert path.read_bytes() == expected


def test_check(shim: Run, profile: Path) -> None:
    """Check exits with 1 while something would change, with 0 afterwards, and writes nothing."""
    result = shim(*ALWAYS, "--check", profile.name)
    assert result.returncode == 1
    assert result.stdout == b""
    assert b"p.json: uretprobe would be allowed, is denied" in result.stderr
    assert profile.read_text() == BEFORE
    assert shim(*ALWAYS, "--in-place", profile.name).returncode == 0
    assert shim(*ALWAYS, "--check", profile.name).returncode == 0


def test_json(shim: Run, profile: Path, tmp_path: Path) -> None:
    """The JSON has each file's edits and verdicts, or its error; nothing is written."""
    (tmp_path / "bad.json").write_text("{")
    result = shim(*ALWAYS, "--json", profile.name, "bad.json")
    assert result.returncode == 2
    good, bad = json.loads(result.stdout)["files"]
    assert good["file"] == "p.json"
    assert (good["format"], good["changed"]) == ("docker", True)
    [edit] = good["edits"]
    assert (edit["op"], edit["path"]) == ("add", "/syscalls/0")
    assert edit["value"]["names"] == edit["syscalls"] == ["uretprobe", "uprobe"]
    assert good["calls"][0] == {
        "syscall": "uretprobe",
        "verdict": "denied-by-default",
        "changed": True,
        "reason": "denied by the default action SCMP_ACT_ERRNO only",
        "effect": "all",
    }
    assert bad["file"] == "bad.json"
    assert bad["error"].startswith("bad.json:1:2: not valid JSON")
    assert profile.read_text() == BEFORE


def test_several_files(shim: Run, profile: Path, tmp_path: Path) -> None:
    """Several files cannot be printed together; elsewhere a bad one does not stop the others."""
    shutil.copy(profile, tmp_path / "second.json")
    (tmp_path / "bad.json").write_text('{"defaultAction": "SCMP_ACT_MAYBE"}')
    assert "several files" in refused(shim(*ALWAYS, "p.json", "second.json"))
    result = shim(*ALWAYS, "--in-place", "p.json", "bad.json", "missing.json", "second.json")
    assert result.returncode == 2
    assert b"bad.json:1:19: /defaultAction unknown action SCMP_ACT_MAYBE\n" in result.stderr
    assert b"missing.json: No such file or directory\n" in result.stderr
    assert profile.read_text() != BEFORE
    assert (tmp_path / "second.json").read_text() == profile.read_text()


def test_explicit_deny(shim: Run, tmp_path: Path) -> None:
    """A deny by name is respected and told, until it is overruled by option."""
    path = tmp_path / "p.json"
    path.write_text(LAYOUTS["two spaces"](ruled({"action": ERRNO})))
    result = shim(*ALWAYS, path.name)
    assert b"uretprobe is left alone: denied by name in the rule /syscalls/0" in result.stderr
    assert b"--override-deny" in result.stderr
    result = shim(*ALWAYS, "--override-deny", path.name)
    assert json.loads(result.stdout)["syscalls"] == [
        {"names": ["uretprobe", "uprobe"], "action": ALLOW},
        {"names": ["read"], "action": ERRNO},
    ]


def test_add(shim: Run, profile: Path) -> None:
    """A program's call is added by name whatever the kernel; an unknown one is an error."""
    result = shim("--when", "needed", "--add", "mseal", profile.name)
    assert "mseal" in json.loads(result.stdout)["syscalls"][0]["names"]
    line = refused(shim("--add", "mkdirat\x1b", profile.name))
    assert line.startswith("mkdirat\\x1b: --add does not know this call")
    assert "did you mean mkdirat" in line
    assert "kernel" in refused(shim("--add", "uretprobe", profile.name))


def test_when_asks_the_kernel(shim: Run, profile: Path) -> None:
    """Without an option the state of the kernel here decides, and is told in the JSON."""
    result = shim("--json", profile.name)
    assert result.returncode == 0
    report = json.loads(result.stdout)
    assert set(report["kernel"]) == {"uretprobe", "uprobe"}
    for call in report["files"][0]["calls"]:
        assert call["changed"] is (report["kernel"][call["syscall"]] in {"filtered", "exempt"})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"not json", "p.json:1:1: not valid JSON"),
        (BEFORE.encode()[:-20], "not valid JSON: the text ends"),
        (
            b'{"defaultAction": "SCMP_ACT_ALLOW",\n "defaultAction": 1}',
            "p.json:2:2: not valid JSON",
        ),
        (LAYOUTS["tabs"](changed(DOCKER, "/syscalls", {})).encode(), "/syscalls must be a list"),
        (b'{"defaultAction": "SCMP_ACT_EVIL\\u001b[2J"}', "unknown action SCMP_ACT_EVIL\\x1b[2J"),
        (b" " * 50_000_000 + b"{}", f"p.json: is larger than {MAX_BYTES >> 20} MiB"),
        (b"[" * 1_000_000, "p.json:1:65: not valid JSON: nested more than 64 levels deep"),
        (b'{"syscalls":' + b"[" * 1_000_000, "nested more than 64 levels deep"),
        (b"\xef\xbb\xbf" + BEFORE.encode(), "p.json:1:1: begins with a byte order mark"),
        (b'{"a": "\xff"}', "p.json:1:8: not valid UTF-8"),
        (b'{"defaultErrnoRet": NaN}', "p.json:1:21: not valid JSON"),
        (b"", "p.json: the file is empty"),
        (b'{"apiVersion": "v1"}', "p.json:1:1: is no profile"),
    ],
    ids=range(13),
)
def test_bad_input(shim: Run, tmp_path: Path, data: bytes, words: str) -> None:
    """Bad input gives one line with its place, exit status 2, and stays as it was."""
    path = tmp_path / "p.json"
    path.write_bytes(data)
    assert words in refused(shim("--in-place", path.name))
    assert path.read_bytes() == data


@pytest.mark.parametrize("option", ["--check", "--diff", "--when=always"])
def test_bad_standard_input(shim: Run, option: str) -> None:
    """Standard input is named as such, whatever was to be done with it."""
    assert refused(shim(option, "-", stdin=b"{")).startswith("standard input:1:2: not valid JSON")


def test_bad_calls(shim: Run, profile: Path) -> None:
    """Options that contradict each other and files that are none are told in one line."""
    assert "missing.json: No such file" in refused(shim("missing.json"))
    assert "Is a directory" in refused(shim("."))
    assert "is larger than" in refused(shim("/dev/zero"))
    assert "once only" in refused(shim("--check", "-", "-"))
    assert "--json and --diff" in refused(shim("--json", "--diff", profile.name))
    assert shim("--check", "--diff", profile.name).returncode == 2
    assert shim("--when", "maybe", profile.name).returncode == 2


def test_reader_goes_away(profile: Path) -> None:
    """A closed pipe behind standard output is no traceback."""
    command = f'"{sys.executable}" -m shim patch --when always {profile} 2>err | true; cat err'
    result = subprocess.run(
        ["sh", "-c", command], capture_output=True, check=True, cwd=profile.parent
    )
    assert b"Traceback" not in result.stdout


def test_help(shim: Run) -> None:
    """The help fits a terminal and names every option of the verb."""
    text = shim("--help").stdout.decode()
    assert all(len(line) <= 100 for line in text.splitlines())
    for option in (
        "--in-place",
        "--diff",
        "--check",
        "--json",
        "--when",
        "--add",
        "--override-deny",
    ):
        assert option in text


@pytest.mark.parametrize(("runtime", "rules"), [("runc", 2), ("crun", 1)])
def test_the_line_is_kept_for_the_runtime_that_is_named(
    shim: Run, tmp_path: Path, runtime: str, rules: int
) -> None:
    """For runc, calls between the profile's newest and ours get ENOSYS by name, and it says so."""
    old: dict[str, Any] = {"defaultAction": ERRNO, "architectures": ["SCMP_ARCH_X86_64"]}
    old["syscalls"] = [{"names": ["read", "getrandom"], "action": ALLOW}]
    (tmp_path / "p.json").write_text(json.dumps(old))
    done = shim("--when", "always", "--runtime", runtime, "p.json")
    added = json.loads(done.stdout)["syscalls"][:-1]
    assert (done.returncode, len(added)) == (0, rules)
    assert added[0] == {"names": ["uretprobe", "uprobe"], "action": ALLOW}
    if rules == 2:
        assert (added[1]["action"], added[1]["errnoRet"]) == (ERRNO, 38)
        assert {"memfd_create", "statx", "rseq"} <= {*added[1]["names"]}
        assert b"get ENOSYS by name, as runc answers them" in done.stderr
        (tmp_path / "q.json").write_bytes(done.stdout)
        again = shim("--when", "always", "--runtime", runtime, "q.json")
        assert again.stdout == done.stdout


def test_a_resource_in_yaml_gets_both_rules(shim: Run, tmp_path: Path) -> None:
    """A SeccompProfile is no exception: the line is kept in it too."""
    (tmp_path / "p.yaml").write_text(
        "apiVersion: security-profiles-operator.x-k8s.io/v1beta1\nkind: SeccompProfile\n"
        "metadata:\n  name: p\nspec:\n  defaultAction: SCMP_ACT_ERRNO\n"
        "  architectures: [SCMP_ARCH_X86_64]\n  syscalls:\n  - action: SCMP_ACT_ALLOW\n"
        "    names:\n    - getrandom\n"
    )
    done = shim("--when", "always", "--runtime", "runc", "p.yaml")
    assert done.returncode == 0, done.stderr
    assert b"errnoRet: 38" in done.stdout
    assert b"- uretprobe" in done.stdout
