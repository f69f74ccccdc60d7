"""What ends by itself is no error of ours: not logged as one, not refused, not put otherwise."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from shim.engines import oci
from shim.logread import recent
from support.containers import OTHER_TEST_SYSCALL, TEST_SYSCALL, profile
from support.wrapped import WrappedLab

MORE = {"names": ["getitimer"], "action": "SCMP_ACT_ALLOW"}
FALSE = {"path": "/bin/false", "args": ["/bin/false"]}
NAME = f"shim-alarm-{os.getpid()}"


@pytest.fixture
def lab(lab: WrappedLab) -> WrappedLab:
    """Return the wrapper before each real runtime; nothing unadjusted may start."""
    lab.configure("deny")
    return lab


def compare(lab: WrappedLab, *args: str) -> "subprocess.CompletedProcess[str]":
    """Run the same by the bare runtime and through the wrapper: nothing may tell them apart."""
    bare, wrapped = (
        subprocess.run(
            oci.command(runtime, *args),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        for runtime in (lab.real, lab.runtime)
    )
    assert wrapped.returncode == bare.returncode
    assert wrapped.stdout == bare.stdout
    assert untimed(wrapped.stderr) == untimed(bare.stderr)
    return bare


def untimed(text: str) -> str:
    """Take out of the runtime's lines what no two calls have in common."""
    return re.sub(r'time="[^"]*"|hook #\d+|pid \d+', "", text)


def bundle(lab: WrappedLab, **more: Any) -> Path:
    """Make a bundle that would have to be adjusted."""
    folder = lab.folder / "bundle"
    folder.mkdir()
    more.setdefault("args", oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
    return oci.bundle(folder, profile(), more.pop("args"), **more)


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_program_that_is_not_there(lab: WrappedLab, no_new_privileges: bool) -> None:
    """The runtime finds that out before it loads the filter, or after: it is the one to say so."""
    folder = bundle(lab, args=["/nosuch"], no_new_privileges=no_new_privileges)
    done = compare(lab, "run", "--bundle", str(folder), NAME)
    assert done.returncode != 0
    assert "/nosuch" in done.stderr
    assert recent(str(lab.log_path), 3600).events == []


def test_a_limit_that_no_start_gets_by_with(lab: WrappedLab) -> None:
    """So few open files that the runtime itself fails: it has the word, and the log no error."""
    folder = bundle(lab)
    document = json.loads((folder / "config.json").read_text())
    document["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 8, "hard": 8}]
    (folder / "config.json").write_text(json.dumps(document))
    done = compare(lab, "run", "--bundle", str(folder), NAME)
    assert done.returncode != 0
    assert recent(str(lab.log_path), 3600).events == []


def test_another_hook_that_fails(lab: WrappedLab) -> None:
    """A start that somebody else's hook refuses, with ours called before it, is refused by that."""
    folder = bundle(lab)
    (ours,) = lab.hooks(stage="createRuntime")["createRuntime"]
    for hooks in ([ours, FALSE], [FALSE]):
        (folder / "config.json").unlink()
        oci.bundle(folder, profile(), ["/bin/true"], hooks={"createRuntime": hooks})
        command = oci.command(lab.runtime, "run", "--bundle", str(folder), NAME)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "hook" in done.stderr
        assert "seccomp-shim" not in done.stderr.replace(str(lab.folder), "")
    assert recent(str(lab.log_path), 3600).events == []


@pytest.mark.parametrize("on_error", ["allow", "deny"])
@pytest.mark.parametrize(
    "args",
    [
        ["exec", "shim-no-such-container", "true"],
        ["exec", "--tty", "shim-no-such-container", "true"],
        ["exec", "-h"],
        ["exec", "--help"],
        ["exec"],
        ["exec", "../nosuch", "true"],
    ],
    ids=" ".join,
)
def test_an_exec_that_cannot_be(lab: WrappedLab, args: list[str], on_error: str) -> None:
    """Into a container that is not there, or for the runtime's help: the runtime has the word."""
    lab.configure(on_error)
    compare(lab, *args)
    assert recent(str(lab.log_path), 3600).events == []


def test_an_exec_that_may_mean_another_container_is_refused(lab: WrappedLab) -> None:
    """Where an unknown option may have the id for its value, what is not found proves nothing."""
    command = oci.command(lab.runtime, "exec", "--no-such-option", "value", "c", "true")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "start refused (on_error: deny)" in done.stderr


def test_an_exec_of_a_program_that_is_not_there(lab: WrappedLab) -> None:
    """As with a start: the runtime's own message and status, and no alarm."""
    folder = bundle(lab)
    with oci.started(lab.real, folder, NAME) as process:
        oci.wait_ready(process, folder)
        done = compare(lab, "exec", NAME, "/nosuch")
    assert done.returncode != 0
    assert "/nosuch" in done.stderr
    assert recent(str(lab.log_path), 3600).events == []


def test_an_id_that_another_container_had(lab: WrappedLab) -> None:
    """What the log says of an earlier container of the same id is not expected of this one."""
    folder = bundle(lab)
    lab.configure("allow", None, "log_detail: full")
    for number, syscalls in enumerate((profile()["syscalls"], [*profile()["syscalls"], MORE])):
        (folder / "config.json").unlink()
        oci.bundle(folder, profile(syscalls=syscalls), oci.caller((TEST_SYSCALL,)))
        with oci.started(lab.runtime, folder, NAME) as process:
            oci.wait_ready(process, folder)
            deadline = time.monotonic() + 20
            while len(lines := lab.events("verified")) <= number:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        (folder / "pid").unlink()
        assert lines[-1]["verified"] is True, lines
