"""What people report of calls that a profile withholds: shown in a container, and named by us.

Each test makes the symptom, then has ``explain`` or ``gaps`` name the cause and what helps; where
that is a command, it is done and the symptom is gone.
"""

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from risk.processes import filtered
from shim import abi, cli
from shim.bpf.program import LD_ABS, RET_K, Insns, encode
from shim.catalog import every
from shim.engines import oci
from shim.engines.docker.builtin import profile as builtin
from shim.host.kernel_calls import Present
from shim.profile import docker
from shim.risk.filter_source import Subject
from shim.risk.gaps import gaps
from support import containers, need
from support.filters import ALLOW, JEQ, denying

PYTHON = os.path.realpath(sys.executable)
THREAD = "import threading; t = threading.Thread(target=print, args=('ran',)); t.start(); t.join()"
EPERM, ENOSYS = 1, 38
MSEAL, PIDFD_GETFD, IO_URING_SETUP, QUOTACTL_FD, FCHMODAT2, GETXATTRAT, OPENAT2 = (
    462, 438, 425, 443, 452, 464, 437,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _able() -> None:
    need.kernel(containers.supported(), "containers need root on x86-64")


def _flat(version: str, *caps: str, without: str = "") -> dict[str, Any]:
    """Return Docker's built-in profile of a version as its daemon hands it on."""
    document, reason = builtin(version)
    assert document is not None, reason
    flat = docker.resolve(
        json.loads(json.dumps(document.tree)),
        capabilities=docker.DEFAULT_CAPABILITIES | set(caps),
        machine="x86_64",
        kernel=(6, 18),
    )
    assert flat is not None
    for rule in flat["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name != without]
    flat["syscalls"] = [rule for rule in flat["syscalls"] if rule["names"]]
    return flat


def _run(
    folder: Path, flat: dict[str, Any], args: list[str], runtime: str = "crun"
) -> "subprocess.CompletedProcess[str]":
    """Run a program of this host's user land in a container under a profile."""
    need.program(runtime)
    shutil.rmtree(folder / "bundle", ignore_errors=True)
    (folder / "bundle").mkdir()
    oci.bundle(folder / "bundle", flat, args)
    name = f"report-{uuid.uuid4().hex}"
    command = oci.command(runtime, "run", "--bundle", f"{folder}/bundle", name)
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def _errno(folder: Path, flat: dict[str, Any], *numbers: int, runtime: str = "crun") -> list[int]:
    """Return what calls without arguments end with in a container."""
    code = "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
    code += f"for n in {numbers!r}: c.syscall(n, -1, 0, 0, 0); print(ctypes.get_errno())"
    done = _run(folder, flat, [PYTHON, "-IS", "-c", code], runtime)
    return [int(line) for line in done.stdout.split()]


def _explain(
    folder: Path, capsys: pytest.CaptureFixture[str], call: str, flat: dict[str, Any], *more: str
) -> dict[str, Any]:
    (folder / "profile.json").write_text(json.dumps(flat, indent=1))
    runtime = () if "--runtime" in more else ("--runtime", "crun")
    words = ["explain", call, "--json", "--profile", f"{folder}/profile.json", *runtime, *more]
    assert cli.main(words) in (0, 1)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)["call"]
    return told


def _patched(capsys: pytest.CaptureFixture[str], told: dict[str, Any], verb: str) -> Any:
    """Do the remedy of ``told`` that has ``verb`` in it; return the profile that it gives."""
    (command,) = [
        each["command"] for each in told["remedies"] if each["command"] and verb in each["command"]
    ]
    _, *words = command.split()
    assert cli.main([words[0], "--when", "needed", *words[1:]]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("call", "program", "works"),
    [
        ("clone3", [PYTHON, "-IS", "-c", THREAD], "ran"),
        ("faccessat2", ["/bin/sh", "-c", "[ -r /bin/sh ] && echo ran"], "ran"),
        ("statx", ["/bin/ls", "-d", "/tmp"], "/tmp"),
    ],
)
def test_a_profile_older_than_the_call(
    call: str,
    program: list[str],
    works: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Threads do not start, files cannot be read or listed: EPERM, and either remedy mends it."""
    old = _flat("20.10.0", without=call)
    broken = _run(tmp_path, old, program)
    assert works not in broken.stdout
    told = _explain(tmp_path, capsys, call, old)
    assert (told["answers"], "no rule names it" in told["cause"]) == (["EPERM"], True)
    # statx is older than what the profile names: its author is taken to have meant it.
    for remedy in ("--add",) if call == "statx" else ("--add", "--enosys"):
        mended = _run(tmp_path, _patched(capsys, told, remedy), program)
        assert works in mended.stdout, mended.stderr
    assert ("--enosys" in str(told["remedies"])) == (call != "statx")


@pytest.mark.parametrize(
    ("call", "number", "nameable"),
    [
        ("fchmodat2", FCHMODAT2, True),
        ("getxattrat", GETXATTRAT, False),
        ("io_uring_setup", IO_URING_SETUP, True),
    ],
)
def test_a_call_that_no_profile_of_that_time_has(
    call: str, number: int, nameable: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tar, cp, extended attributes, databases: EPERM, whose remedy depends on the libseccomp."""
    flat = _flat("25.0.0", without=call)
    assert _errno(tmp_path, flat, number) == [EPERM]
    told = _explain(tmp_path, capsys, call, flat)
    assert (told["answers"], told["kind"], told["nameable"]) == (["EPERM"], "errno", nameable)
    helps = " ".join(f"{each['text']} {each['command']}" for each in told["remedies"])
    assert f"patch --enosys {call}" in helps
    assert (f"patch --add {call}" if nameable else "libseccomp 2.5.6") in helps


def test_a_call_that_needs_a_capability(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Debuggers are refused pidfd_getfd: the rule holds for containers with CAP_SYS_PTRACE."""
    assert _errno(tmp_path, _flat("25.0.0"), PIDFD_GETFD) == [EPERM]
    assert _errno(tmp_path, _flat("25.0.0", "CAP_SYS_PTRACE"), PIDFD_GETFD) != [EPERM]
    assert cli.main(["explain", "pidfd_getfd", "--json", "--image-profile", "docker:25.0.0"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert "needs CAP_SYS_PTRACE" in told["call"]["cause"]
    more = ["--image-profile", "docker:25.0.0", "--cap", "SYS_PTRACE"]
    assert cli.main(["explain", "pidfd_getfd", *more]) == 0


def test_a_name_without_effect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The profile names the call, and it is refused all the same: libseccomp drops the name."""
    flat = _flat("25.0.0")
    flat["syscalls"].append({"names": ["mseal"], "action": "SCMP_ACT_ALLOW"})
    told = _explain(tmp_path, capsys, "mseal", flat)
    need.kernel(told["nameable"] is False, "this libseccomp knows mseal")
    assert _errno(tmp_path, flat, MSEAL) == [EPERM]
    assert "drops the name" in told["cause"]
    assert "libseccomp 2.5.6" in told["remedies"][0]["text"]


def test_a_runtime_that_refuses_unknown_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A crun that was told so starts no container: it is the name that libseccomp does not know."""
    flat = _flat("25.0.0")
    flat["syscalls"].append({"names": ["mseal"], "action": "SCMP_ACT_ALLOW"})
    oci.bundle(tmp_path, flat, ["/bin/true"])
    config = json.loads((tmp_path / "config.json").read_text())
    config["annotations"] = {"run.oci.seccomp_fail_unknown_syscall": "1"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = oci.command(need.program("crun"), "run", "--bundle", str(tmp_path), uuid.uuid4().hex)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = _explain(tmp_path, capsys, "mseal", flat)
    need.kernel(told["nameable"] is False, "this libseccomp knows mseal")
    assert (done.returncode != 0, "mseal" in done.stderr) == (True, True)
    assert told["nameable"] is False


def test_eperm_for_some_numbers_enosys_for_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under runc only calls above the newest name of the profile are as on an old kernel."""
    flat = _flat("20.10.0")
    assert _errno(tmp_path, flat, OPENAT2, QUOTACTL_FD, runtime="runc")[1:] == [ENOSYS]
    flat["syscalls"].append({"names": ["fchmodat2"], "action": "SCMP_ACT_ALLOW"})
    assert _errno(tmp_path, flat, QUOTACTL_FD, MSEAL, runtime="runc") == [EPERM, ENOSYS]
    runc = ("--runtime", "runc")
    below, above = (_explain(tmp_path, capsys, n, flat, *runc) for n in ("quotactl_fd", "mseal"))
    assert (below["answers"], above["answers"]) == (["EPERM"], ["ENOSYS"])
    assert "above every name of the profile, where runc answers ENOSYS" in above["cause"]


def test_a_profile_that_works_on_one_host_only(capsys: pytest.CaptureFixture[str]) -> None:
    """MinKernel, the runtime and its libseccomp make the difference, and are told."""
    asked = ["explain", "ptrace", "--image-profile", "docker:25.0.0"]
    assert cli.main([*asked, "--kernel", "6.1"]) == 0
    assert cli.main([*asked, "--kernel", "4.4"]) == 1
    assert "needs Linux 4.8" in capsys.readouterr().out.replace("\n          ", " ")
    answers = {}
    for options in (("runc", "2.5.4"), ("crun", "2.5.4"), ("crun", "2.6.0")):
        words = ["--runtime", options[0], "--for-libseccomp", options[1]]
        cli.main(["explain", "mseal", "--json", "--image-profile", "docker:28.2.0", *words])
        answers[options] = json.loads(capsys.readouterr().out)["call"]["answers"]
    assert answers == {
        ("runc", "2.5.4"): ["ENOSYS"],
        ("crun", "2.5.4"): ["EPERM"],
        ("crun", "2.6.0"): ["allowed"],
    }


def test_a_new_image_on_an_old_docker(capsys: pytest.CaptureFixture[str]) -> None:
    """Gaps lists what the engine's own profile of years ago withholds from today's programs."""
    words = ["gaps", "--json", "--image-profile", "docker:20.10.0", "--runtime", "crun"]
    assert cli.main(words) == 0
    calls = {row["name"]: row for row in json.loads(capsys.readouterr().out)["calls"]}
    for name in ("clone3", "close_range", "epoll_pwait2", "fchmodat2", "landlock_add_rule"):
        assert calls[name]["kind"] == "errno"
        assert "glibc" in calls[name]["users"] or name == "landlock_add_rule"
        assert any("--enosys" in (each["command"] or "") for each in calls[name]["remedies"])


def test_the_filter_of_a_service(capsys: pytest.CaptureFixture[str]) -> None:
    """No profile at all, as with SystemCallFilter=: the process tells, whoever loaded it."""
    # What systemd loads is a filter like any other; of uretprobe the kernel decides by itself.
    killing: Insns = [(LD_ABS, 0, 0, 0)]
    for number in (FCHMODAT2, OPENAT2):
        killing += [(JEQ, 0, 1, number), (RET_K, 0, 0, abi.SECCOMP_RET_KILL_PROCESS)]
    refusing = [(LD_ABS, 0, 0, 0), (JEQ, 0, 1, MSEAL), (RET_K, 0, 0, abi.SECCOMP_RET_ERRNO | 1)]
    with filtered(encode([*killing, ALLOW]), encode([*refusing, ALLOW])) as pid:
        assert cli.main(["gaps", "--json", "--pid", str(pid)]) == 0
        document = json.loads(capsys.readouterr().out)
    kinds = {row["name"]: row["kind"] for row in document["calls"] if row["kind"] != "allowed"}
    assert kinds == {"fchmodat2": "killed", "openat2": "killed", "mseal": "errno"}


def test_a_kernel_that_makes_processes_call() -> None:
    """Processes die of SIGSEGV once an agent attaches: uretprobe, and the command against it."""
    refusing = Subject("a filter", "x86_64", (denying(0),))
    there = Present(frozenset(every()), "a kernel of 6.12, where the filter decides")
    (row,) = [each for each in gaps(refusing, there).answers if each.call.name == "uretprobe"]
    assert row.words == ("EPERM",)
    assert row.remedies[0].command.startswith("seccomp-shim ")


def test_a_misspelt_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No engine says that a name in a profile is no call: gaps and explain do."""
    flat = _flat("25.0.0")
    flat["syscalls"].append({"names": ["clone_3"], "action": "SCMP_ACT_ALLOW"})
    assert _run(tmp_path, flat, ["/bin/true"]).returncode == 0
    (tmp_path / "profile.json").write_text(json.dumps(flat))
    cli.main(["gaps", "--profile", f"{tmp_path}/profile.json"])
    assert "'clone_3': no system call of any kernel that we know" in capsys.readouterr().out
