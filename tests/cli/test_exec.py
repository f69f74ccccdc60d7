"""The verb exec: programs really run under the filter that was loaded."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shim import abi, cli
from shim.bpf import program
from shim.bpf.emulator import verdict
from shim.host.ptrace import Tracee
from support import need
from support.filters import X86_64, shipped
from support.image import at_terminal

NAMES = ("uretprobe", "uprobe")
ALL = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]

# Makes the calls whose numbers are its arguments and prints their errno values.
CALLER = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
for number in sys.argv[1:]:
    ctypes.set_errno(0)
    libc.syscall(int(number))
    print(ctypes.get_errno())
"""


def _old() -> dict[str, Any]:
    """Return the shipped profile as it was before the kernel-injected calls."""
    profile = shipped()
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule.get("names", []) if name not in NAMES]
    return profile


class Lab:
    """A profile in a directory of its own, and a log beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.profile = folder / "profile.json"
        self.settings = folder / "state"
        self.log = self.settings / "seccomp-shim" / "audit.jsonl"

    def command(self, profile: dict[str, Any], *command: str, when: str = "always") -> list[str]:
        """Return the command line that runs ``command`` under ``profile``."""
        self.profile.write_text(json.dumps(profile))
        start = "import sys; from shim import cli, log; target = sys.argv.pop(1); "
        options = ["--profile", str(self.profile), "--when", when, "--"]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        code = f"{start}log.path = lambda: target; sys.exit(cli.main())"
        return [sys.executable, "-c", code, str(self.log), "exec", *options, *command]

    def run(
        self, profile: dict[str, Any], *command: str, when: str = "always"
    ) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        return subprocess.run(
            self.command(profile, *command, when=when),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of the log."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Return a laboratory in an empty directory."""
    return Lab(tmp_path)


def test_the_program_runs_under_the_profile(lab: Lab) -> None:
    """What the profile denies by default is denied, what it allows works."""
    done = lab.run(_old(), sys.executable, "-c", CALLER, "39", "400")
    assert (done.stdout, done.stderr, done.returncode) == ("0\n1\n", "", 0)


def test_on_a_terminal_only_the_program_is_seen(lab: Lab) -> None:
    """The lines of the log are for the log."""
    assert at_terminal(lab.command(_old(), "/bin/echo", "hello")) == (0, "hello\r\n")
    assert lab.lines()


def test_a_name_that_no_kernel_has_is_told(lab: Lab) -> None:
    """A misspelt rule does nothing, and the program starts all the same."""
    profile = _old()
    profile["syscalls"][0]["names"].append("flibbertigibbet")
    done = lab.run(profile, "true")
    assert done.returncode == 0
    assert "'flibbertigibbet': no system call of any kernel that we know" in done.stderr


def test_the_loaded_filter_allows_the_kernel_injected_calls(lab: Lab) -> None:
    """Read back from the running process: both calls allowed, the one filter as it was logged."""
    need.root()
    with subprocess.Popen(
        lab.command(_old(), "sh", "-c", "echo started; exec cat"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "started\n"
        tracee = Tracee(running.pid)
        loaded = tracee.filters()
        tracee.detach()
        running.communicate("")
    assert len(loaded) == 1
    insns = program.decode(loaded[0])
    numbers = [335, 336, 337, 335 | abi.X32_SYSCALL_BIT]
    names = [program.action_name(verdict(insns, number, X86_64)) for number in numbers]
    assert names == ["ALLOW", "ALLOW", "ERRNO(1)", "ERRNO(1)"]
    sums = {line["sha256_after"] for line in lab.lines()}
    assert sums == {hashlib.sha256(loaded[0]).hexdigest()}


def test_every_adjustment_is_logged(lab: Lab) -> None:
    """One line a call, with the verdict before and after, and the proof."""
    assert lab.run(_old(), "true").returncode == 0
    lines = lab.lines()
    assert [line["syscall"] for line in lines] == list(NAMES)
    for line in lines:
        assert (line["event"], line["mechanism"]) == ("exec", "libseccomp")
        assert (line["before"], line["after"]) == ("denied-by-default", "allowed")
        assert line["length_after"] > line["length_before"]
        assert "uprobe, uretprobe newly allowed" in line["proof"]
        assert line["profile"] == str(lab.profile)


def test_without_a_log_line_nothing_is_run(lab: Lab) -> None:
    """Where the log cannot be written the program is not started."""
    command = lab.command(_old(), "echo", "ran")
    lab.log.mkdir()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 2)
    assert "cannot log" in done.stderr


def test_an_explicit_denial_is_respected(lab: Lab) -> None:
    """A call that the profile denies by name stays denied, and the log says why."""
    profile = _old()
    profile["syscalls"].append({"names": ["uretprobe"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5})
    assert lab.run(profile, "true").returncode == 0
    after = {line["syscall"]: (line["before"], line["after"]) for line in lab.lines()}
    assert after["uretprobe"] == ("explicit-deny", "explicit-deny")
    assert after["uprobe"] == ("denied-by-default", "allowed")


def test_no_new_privs_is_set_only_where_the_kernel_demands_it(lab: Lab) -> None:
    """Root keeps its privileges; a user without CAP_SYS_ADMIN gives up gaining any."""
    need.root()
    setpriv = need.program("setpriv")
    status = ["grep", "-E", "NoNewPrivs|Seccomp:", "/proc/self/status"]
    command = lab.command(_old(), *status)
    for prefix, flag in (([], "0"), ([setpriv, "--bounding-set", "-sys_admin"], "1")):
        drop = ["--inh-caps", "-sys_admin", "--"] if prefix else []
        done = subprocess.run(
            [*prefix, *drop, *command], capture_output=True, text=True, check=False
        )
        assert done.stdout.split() == ["NoNewPrivs:", flag, "Seccomp:", "2"], done.stderr


def test_signals_are_as_the_program_expects_them(lab: Lab) -> None:
    """SIGPIPE and SIGXFSZ, which Python ignores, have their defaults back."""
    done = lab.run(_old(), "grep", "SigIgn", "/proc/self/status")
    ignored = int(done.stdout.split()[1], 16)
    assert not ignored >> (signal.SIGPIPE - 1) & 1
    assert not ignored >> (signal.SIGXFSZ - 1) & 1


def test_arguments_and_exit_code_are_the_programs(lab: Lab) -> None:
    """All behind the two dashes is the program's, dashes included; so is its exit status."""
    done = lab.run(_old(), "sh", "-c", 'echo "$@"; exit 7', "sh", "--", "-l", "--json")
    assert (done.stdout, done.returncode) == ("-- -l --json\n", 7)


@pytest.mark.parametrize("when", ["present", "needed"])
def test_when_decides_by_the_kernel_here(when: str, lab: Lab) -> None:
    """The call is added if the kernel's state asks for it, else the log says why not."""
    from shim.host.cache import facts

    states = {name: call["state"] for name, call in facts()["syscalls"].items()}
    wanted = {"present": ("filtered", "exempt"), "needed": ("filtered",)}[when]
    assert lab.run(_old(), "true", when=when).returncode == 0
    for line in lab.lines():
        expected = "allowed" if states[line["syscall"]] in wanted else "denied-by-default"
        assert line["after"] == expected
        assert line["reason"]


@pytest.mark.parametrize(
    ("profile", "command", "message"),
    [
        (None, ["no-such-program"], "no such program"),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ALL,
                "syscalls": [{"names": ["open"], "action": "SCMP_ACT_NOTIFY"}],
            },
            ["true"],
            "no supervisor",
        ),
        ({"defaultAction": "SCMP_ACT_WHAT"}, ["true"], "unknown action"),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ERRNO"}],
            },
            ["true"],
            "cannot be started under the profile",
        ),
    ],
    ids=["program", "notify", "action", "execve"],
)
def test_what_cannot_be_run_is_one_line(
    profile: dict[str, Any] | None, command: list[str], message: str, lab: Lab
) -> None:
    """The error says what is missing or forbidden, exit status 2."""
    done = lab.run(_old() if profile is None else profile, *command)
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert os.fspath(lab.folder) in done.stderr or command[0] in done.stderr


@pytest.mark.parametrize("tree", [{}, {"ociVersion": "1.0.2", "linux": {}}])
def test_a_document_without_a_filter_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tree: dict[str, Any]
) -> None:
    """Nothing is run unconfined that was to run under a profile."""
    path = tmp_path / "p.json"
    path.write_text(json.dumps(tree))
    assert cli.main(["exec", "--when", "always", "--profile", str(path), "true"]) == 2
    assert "holds no filter" in capsys.readouterr().err
