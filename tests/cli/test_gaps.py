"""The verbs gaps and explain, as an admin calls them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shim import cli
from shim.catalog import every
from shim.catalog.table import numbers, since
from shim.cli import explain as explain_verb
from shim.cli import gaps as gaps_verb
from shim.cli import output
from shim.host import kernel_calls
from shim.host.kernel_calls import Present, present
from shim.profile import docker
from shim.profile.document import Document, read
from shim.profile.model import Loader
from shim.risk.explain import explain
from shim.risk.filter_source import Subject, of_profile
from shim.risk.gaps import gaps
from support import need
from support.checkout import CHECKOUT

DEFAULT = CHECKOUT / "profiles/docker/default.json"
SCHEMA = json.loads((CHECKOUT / "docs/calls.schema.json").read_text())
GOLDEN = CHECKOUT / "tests/cli/golden"
OLD = b"""{
 "defaultAction": "SCMP_ACT_ERRNO",
 "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []}],
 "syscalls": [
  {"names": ["read", "write", "statx", "fchmodat2"], "action": "SCMP_ACT_ALLOW"},
  {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
  {"names": ["memfd_create"], "action": "SCMP_ACT_KILL"},
  {"names": ["rseq"], "action": "SCMP_ACT_ALLOW",
   "args": [{"index": 2, "value": 1, "op": "SCMP_CMP_EQ"}]}
 ]
}
"""


def _kernel(release: tuple[int, int]) -> Present:
    calls = (every()[name] for name in numbers()["x86_64"])
    names = (call.name for call in calls if call.kernel and since(call)[:2] <= release)
    return Present(frozenset(names), "a kernel that tests made up")


def _subject(libseccomp: str = "2.5.4", program: str = "runc") -> Subject:
    container: dict[str, Any] = {
        "capabilities": docker.DEFAULT_CAPABILITIES,
        "machine": "x86_64",
        "kernel": (6, 12),
    }
    version = {"runc": "1.1.5", "crun": "1.8.1"}[program]
    return of_profile(
        read(OLD, "old.json"), Loader(program, version, libseccomp), container, "x86_64"
    )


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have standard output taken for a terminal of 80 columns."""
    monkeypatch.setattr(output, "screen", lambda: 80)


def _is_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("SHIM_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
    assert [line for line in text.splitlines() if len(line) > 80] == []


@pytest.mark.usefixtures("terminal")
def test_the_screen_of_gaps(capsys: pytest.CaptureFixture[str]) -> None:
    """It is the golden one, and fits a terminal."""
    asked, there = _subject(program="crun"), _kernel((6, 12))
    gaps_verb.show(asked, there, gaps(asked, there), everything=False)
    _is_golden("gaps.txt", capsys.readouterr().out)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("name", ["clone3", "mseal", "bpf", "rseq", "memfd_create", "fchmodat2"])
def test_the_screen_of_explain(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One call fits one screen, whatever decides on it."""
    asked = _subject()
    explain_verb.show(asked, explain(asked, _kernel((6, 12)), every()[name]))
    text = capsys.readouterr().out
    _is_golden(f"explain-{name}.txt", text)
    assert text.count("\n") <= 24


@pytest.mark.parametrize(
    ("name", "libseccomp", "program", "answers", "cause", "remedy"),
    [
        ("clone3", "2.5.4", "crun", ["EPERM"], "no rule names it", "patch --add clone3 old.json"),
        ("clone3", "2.5.4", "crun", ["EPERM"], "no rule", "patch --enosys clone3 old.json"),
        ("fchmodat2", "2.5.4", "crun", ["EPERM"], "drops the name", "libseccomp 2.5.5"),
        ("fchmodat2", "2.5.5", "crun", ["allowed"], "old.json:5: SCMP_ACT_ALLOW", ""),
        (
            "fchmodat2",
            "2.5.4",
            "runc",
            ["ENOSYS"],
            "drops the name",
            "nothing, since",
        ),
        ("mseal", "2.6.0", "runc", ["ENOSYS"], "above every name", "patch --add mseal"),
        ("bpf", "2.5.4", "runc", ["EPERM"], "needs CAP_SYS_ADMIN", "needs CAP_SYS_ADMIN"),
        ("memfd_create", "2.5.4", "crun", ["killed"], "old.json:7: SCMP_ACT_KILL", "author denies"),
        ("rseq", "2.5.4", "crun", ["allowed", "EPERM"], "for certain arguments", "--override-deny"),
        ("uretprobe", "2.5.4", "crun", ["EPERM"], "no rule names it", "install ENGINE --default"),
        ("uretprobe", "2.6.0", "crun", ["EPERM"], "no rule names it", "patch old.json"),
    ],
)
def test_the_cause_and_the_remedy(
    name: str, libseccomp: str, program: str, answers: list[str], cause: str, remedy: str
) -> None:
    """Each reason for which a call is withheld is told, with what helps against that one."""
    asked = _subject(libseccomp, program)
    told = explain(asked, _kernel((6, 12)), every()[name])
    assert told.answer is not None
    assert list(told.answer.words) == answers
    assert cause in told.answer.cause
    helps = [f"{each.text} {each.command}" for each in told.answer.remedies]
    assert any(remedy in each for each in helps) or (not remedy and not helps)


def test_the_documents_are_as_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What both verbs print as JSON is what docs/calls.schema.json says."""
    (tmp_path / "old.json").write_bytes(OLD)
    cases = [
        ["gaps"],
        ["gaps", "--image-profile", "docker:20.10.7", "--runtime", "crun"],
        ["gaps", "--profile", str(tmp_path / "old.json"), "--machine", "aarch64"],
        ["gaps", "--pid", "1"],
        ["explain", "clone3"],
        ["explain", "rseq", "--profile", str(tmp_path / "old.json")],
        ["explain", "riscv_hwprobe"],
    ]
    need.kernel(os.geteuid() == 0, "the filters of processes need root")
    for words in cases:
        assert cli.main([*words, "--json"]) in (0, 1)
        jsonschema.validate(json.loads(capsys.readouterr().out), SCHEMA)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["explain", "clone33"], "clone33: is no system call of any kernel that we know (did you "),
        (["explain", "601"], "601: is no call's number on x86_64"),
        (["gaps", "--pid", "4194305"], "process 4194305: there is no such process"),
        (["gaps", "--container", "no\x1bsuch"], "no\\x1bsuch: no such container runs here"),
        (["gaps", "--image-profile", "podman:4"], "podman:4: names no engine and version"),
        (["gaps", "--image-profile", "docker:1.0.0"], "docker:1.0.0: "),
        (["gaps", "--profile", "/nonexistent"], "/nonexistent: No such file or directory"),
        (["gaps", "--machine", "vax"], "vax: is no machine"),
        (["gaps", "--machine", "s390x"], f"{DEFAULT}: libseccomp makes its filter for "),
        (["gaps", "--pid", "1", "--container", "c"], "--profile, --pid, --container, --unit and "),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what failed, and on what; exit status 2."""
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"seccomp-shim {words[0]}: {told}")


def test_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    """Explain tells a script whether the call is let through."""
    assert [cli.main(["explain", name]) for name in ("read", "statx", "bpf")] == [0, 0, 1]
    assert "to do     nothing" in capsys.readouterr().out


def test_a_number_is_as_good_as_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    """And so are the kernel's own spellings."""
    screens = []
    for word in ("435", "clone3", "__NR_clone3", "__x64_sys_clone3"):
        cli.main(["explain", word])
        screens.append(capsys.readouterr().out)
    assert len(set(screens)) == 1


def test_what_the_kernel_has_is_told_by_the_best_source(tmp_path: Path) -> None:
    """Symbols first, weak ones not counted; then tracefs, BTF, and at last the release."""
    names = sorted(present("x86_64").names - {"mseal"})
    assert present("x86_64", str(tmp_path)).source.startswith("the catalogue, by the release")
    for place in ("proc", "sys/kernel/tracing/events/syscalls", "sys/kernel/btf"):
        (tmp_path / place).mkdir(parents=True)
    functions = [f"__x64_sys_{kernel_calls._FUNCTIONS.get(name, name)}" for name in names]
    btf = b"\0".join([b"", *map(str.encode, functions), b"other", b""])
    (tmp_path / "sys/kernel/btf/vmlinux").write_bytes(btf)
    assert present("x86_64", str(tmp_path)).names >= set(names)
    assert present("x86_64", str(tmp_path)).source == kernel_calls.BTF
    for name in names:
        (tmp_path / f"sys/kernel/tracing/events/syscalls/sys_enter_{name}").mkdir()
    assert present("x86_64", str(tmp_path)).source.endswith("/tracing/events/syscalls")
    lines = [f"0000000000000000 T {name}\n" for name in functions]
    lines += ["0000000000000000 W __x64_sys_mseal\n", "0000000000000000 t other\t[module]\n"]
    (tmp_path / "proc/kallsyms").write_text("".join(lines))
    told = present("x86_64", str(tmp_path))
    assert (told.source, told.names) == (kernel_calls.KALLSYMS, frozenset(names))


def test_of_another_machine_the_release_tells(tmp_path: Path) -> None:
    """The symbols here are not its kernel's, and nothing is exempt there."""
    told = present("aarch64", str(tmp_path))
    assert told.source.endswith("(this machine is no aarch64)")
    assert "fchmodat2" in told.names
    assert told.names.isdisjoint({"fork", *told.exempt})


def test_a_builtin_profile_has_no_line_to_show() -> None:
    """A rule of it is named by what leads to it."""
    asked = _subject()
    assert asked.document is not None
    plain = Document(
        "the profile built into Docker", "", asked.document.tree, asked.document.format
    )
    other = of_profile(plain, Loader("crun", "1.8.1", "2.5.4"), asked.container, "x86_64")
    assert other.rules("bpf")[0].where == "the profile built into Docker /syscalls/1"
    assert asked.rules("bpf")[0].where == "old.json:6"


def test_no_color_and_no_wrapping_in_a_pipe() -> None:
    """A program that reads the table gets a call a line."""
    command = [sys.executable, "-P", "-m", "shim", "gaps", "--image-profile", "docker:20.10.0"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT).stdout
    assert "\x1b" not in text
    assert re.search(r"^5\.3 +435 +clone3 +EPERM +glibc 2\.34", text, re.MULTILINE)
