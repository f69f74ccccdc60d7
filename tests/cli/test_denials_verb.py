"""The verb denials: what it prints of commands, processes and real containers."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shim import abi, cli
from shim.cli import denials
from shim.risk.denials import Denial
from support import need
from support.checkout import CHECKOUT
from support.filters import denying

SCHEMA = json.loads((CHECKOUT / "docs/denials.schema.json").read_text())
REFUSED = """
import errno, sys
from shim.host import libc
libc.set_filter(bytes.fromhex(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for nr in (417, 417, 418):
    try:
        libc.syscall(nr, 7)
    except OSError as error:
        assert error.errno == errno.EPERM
"""


SCRIPT = [
    *(sys.executable, "-c", REFUSED),
    denying(*(nr for nr in range(500) if nr not in (417, 418))).hex(),
]
EXPECTED = {("417", "ERRNO(1)", "EPERM"): 2, ("418", "ERRNO(1)", "EPERM"): 1}


@pytest.fixture(autouse=True)
def _machine() -> None:
    need.root()
    need.kernel(os.path.exists("/sys/kernel/btf/vmlinux"), "this kernel has no BTF")


@contextmanager
def refused() -> Iterator["subprocess.Popen[str]"]:
    """Have a process that makes three calls that its filter refuses as soon as it gets a line."""
    with subprocess.Popen(
        SCRIPT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run the verb: exit status, standard output and error."""
    code = cli.main(["denials", *words])
    return code, *capsys.readouterr()


def started(*words: str) -> "subprocess.Popen[str]":
    """Start the verb as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "shim", "denials", *words],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def began(verb: "subprocess.Popen[str]") -> str:
    """Wait until the verb watches; give the line that says so."""
    assert verb.stderr is not None
    line = verb.stderr.readline()
    assert line.startswith("watching what is refused to "), line + verb.stderr.read()
    return line


def go_on(process: "subprocess.Popen[str]") -> None:
    """Have the process make its calls, and wait for its end."""
    process.communicate("\n", timeout=60)
    assert process.returncode == 0


def document(text: str) -> dict[str, Any]:
    """Read what --json printed, which is as the schema says."""
    found: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    return found


def counts(found: dict[str, Any]) -> dict[tuple[str, str, str], int]:
    """Return call, answer and what the program got of each denial, with its count."""
    return {
        (each["call"], each["answer"], each["errno"]): each["count"] for each in found["denials"]
    }


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Have the script's standard input say that it may go on."""
    (tmp_path / "line").write_text("\n")
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    before = os.dup(0)
    os.dup2(os.open(tmp_path / "line", os.O_RDONLY), 0)
    yield
    os.dup2(before, 0)


@pytest.mark.usefixtures("go")
def test_what_a_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a command every call is seen from its first one on, as a document, exit status 1."""
    code, out, _ = run(capsys, "--json", "--", *SCRIPT)
    assert code == 1
    found = document(out)
    # Containers that others start meanwhile are new as well.
    found["denials"] = [each for each in found["denials"] if each["nr"] in (417, 418)]
    assert counts(found) == EXPECTED
    assert found["lost"] == 0
    assert {each["group"] for each in found["denials"]} == {"-"}


def test_the_table_and_what_helps() -> None:
    """For people a table by count, and for each call the command that explains it, if any can."""
    with refused() as one:
        verb = started("--pid", str(one.pid))
        assert began(verb) == f"watching what is refused to process {one.pid}, until CTRL-C\n"
        go_on(one)
        verb.terminate()  # as CTRL-C, which some who run tests in the background ignore
        out, _ = verb.communicate(timeout=60)
    out = re.sub(r"\d\d:\d\d:\d\d", "TIME", re.sub(r"\d+\.\d s", "N s", out))
    name = os.path.basename(sys.executable)[:15].ljust(7)
    pid = str(one.pid)
    assert out.splitlines() == [
        f"3 calls refused to process {pid} in N s:",
        f"call  answer  {'program'.ljust(len(name))}  {'pid'.ljust(len(pid))}  count  last",
        f"417   EPERM   {name}  {pid.ljust(3)}  2      TIME",
        f"418   EPERM   {name}  {pid.ljust(3)}  1      TIME",
        "",
        "What decides, and what helps:",
        "  nothing that we know: no Linux of our catalogue has a call 418",
        "  nothing that we know: no Linux of our catalogue has a call 417",
    ]


def test_what_explains_a_call_of_another_abi(capsys: pytest.CaptureFixture[str]) -> None:
    """The call is asked about where it is one: 13 is time on i386, rt_sigaction on x86-64."""
    each = Denial("-", "old", abi.AUDIT_ARCH_I386, 13, abi.SECCOMP_RET_ERRNO | 1, 1, 7, 0, count=1)
    same = replace(each, arch=abi.AUDIT_ARCH_X86_64)
    denials._print([each, same], "process 7", 1.0, 0)
    out = capsys.readouterr().out
    assert "  seccomp-shim explain time --pid 7 --arch i386\n" in out
    assert "  seccomp-shim explain rt_sigaction --pid 7\n" in out


def test_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Then it says so, with exit status 0."""
    code, out, _ = run(capsys, "--pid", str(os.getpid()), "--for", "0.1s")
    assert code == 0
    assert re.fullmatch(rf"0 calls refused to process {os.getpid()} in 0\.\d s\.\n", out)


def test_a_command_that_fails(capfd: pytest.CaptureFixture[str]) -> None:
    """Its output is kept out of ours, and its exit status is told."""
    cli.main(["denials", "--json", "--", "sh", "-c", "echo hello; exit 3"])
    out, err = capfd.readouterr()
    document(out)
    assert err == "hello\nsh: exit status 3\n"


def test_a_process_and_what_it_starts() -> None:
    """--pid counts that process, for the time that was said, and nobody else."""
    with refused() as one, refused() as other:
        verb = started("--pid", str(one.pid), "--for", "5m", "--json")
        assert began(verb) == f"watching what is refused to process {one.pid}, for 300 s\n"
        go_on(other)
        go_on(one)
        verb.terminate()
        out, _ = verb.communicate(timeout=60)
        assert verb.returncode == 1
        assert counts(document(out)) == EXPECTED
        assert {each["pid"] for each in document(out)["denials"]} == {one.pid}


def test_everybody_and_a_time_that_ends() -> None:
    """--all sees whoever it is, and --for ends by itself."""
    with refused() as one:
        verb = started("--all", "--for", "2s", "--json")
        began(verb)
        go_on(one)
        out, _ = verb.communicate(timeout=60)
    found = document(out)
    assert found["seconds"] >= 2
    mine = [each for each in found["denials"] if each["pid"] == one.pid]
    assert {each["call"]: each["count"] for each in mine} == {"417": 2, "418": 1}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "say whose calls: --container, --unit, --pid or --all, or a command after --"),
        (["--all", "--", "true"], "say whose calls: --container, --unit, --pid or --all"),
        (["--pid", "4194305"], "4194305: there is no such process"),
        (["--container", "no-such-one"], "no-such-one: no such container runs here"),
        (["--", "/nonexistent/x"], "/nonexistent/x: cannot be started (No such file or directory)"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    """Names what is wrong, with exit status 2."""
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"seccomp-shim denials: {line}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("text", ["0", "0s", "30", "soon", "-1s", "1y", "99999999w"])
def test_a_time_that_is_none(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Is told with how it is written."""
    with pytest.raises(SystemExit) as ended:
        run(capsys, "--all", f"--for={text}")
    assert ended.value.code == 2
    assert f"'{text}' is no time: write it as 30s, 5m or 1h" in capsys.readouterr().err


def test_without_root_it_is_said() -> None:
    """An ordinary user is told so, in one line."""
    done = subprocess.run(
        [
            *("setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-P", "-m", "shim"),
            *("denials", "--all", "--for", "1s"),
        ],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    told = "seccomp-shim denials: only root can read the filters of processes (run it with sudo)\n"
    assert done.stderr == told
