"""What Python programs ask before they attach a probe."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

import shim
from risk.processes import filtered
from shim.errors import ShimError
from shim.host.cache import facts
from shim.host.ptrace import Tracee
from shim.risk.api import HostProbe, Verdict
from support.checkout import CHECKOUT
from support.containers import TEST_SYSCALL, Lab, real
from support.filters import denying

CALL = f"test-syscall-{TEST_SYSCALL}"


def test_a_process_is_judged_by_its_filters() -> None:
    """Who would die on this kernel is at risk; the outcome is told whatever the kernel does."""
    with filtered(denying(*range(335))) as pid:
        found = shim.at_risk(pid, CALL)
        assert (found.at_risk, found.outcome, found.signal) == (True, "dies", "SIGSEGV")
        assert (found.filters, found.owner, found.pid) == ("ERRNO(1)", "own", pid)
        plain = shim.at_risk(pid)
        assert plain.outcome == "dies"
        assert plain.at_risk == shim.probe_host().kills
    with filtered(denying(*range(424))) as pid:
        assert not shim.at_risk(pid, CALL).at_risk


def test_whoever_cannot_be_read_is_at_risk() -> None:
    """A program that asks before it attaches does not attach to a process nobody knows of."""
    with filtered(denying(*range(424))) as pid:
        tracee = Tracee(pid)
        found = shim.at_risk(pid, CALL)
        assert (found.at_risk, found.outcome) == (True, "unread")
        assert found.why == f"traced by process {os.getpid()}"
        assert shim.at_risk(pid).at_risk == shim.probe_host().kills
        tracee.detach()


def test_a_container_is_named(tmp_path: Path) -> None:
    """The id is that of the container's cgroup."""
    with Lab(tmp_path, real("runc")).container() as container:
        found = shim.at_risk(container.ready(), CALL)
        assert (found.container, found.at_risk, found.owner) == (container.name, True, "runtime")


def test_the_host_is_what_probe_says() -> None:
    """The kernel's states, and whether it kills."""
    host = shim.probe_host()
    assert host.release == os.uname().release
    assert host.calls == {name: call["state"] for name, call in facts()["syscalls"].items()}
    assert host.kills == (host.calls["uretprobe"] in ("filtered", "unknown"))


def test_nobody_is_an_error() -> None:
    """A process that is not there raises the one kind of error that is meant to be read."""
    with pytest.raises(ShimError, match="no such process"):
        shim.at_risk(1 << 22)


def test_the_answers_are_as_documented() -> None:
    """The page for tracers names each field once, and its example runs but for BCC itself."""
    page = (CHECKOUT / "docs/for-tracers.md").read_text()
    for kind in (Verdict, HostProbe):
        for field in dataclasses.fields(kind):
            assert f"| `{field.name}` |" in page
    example = page.partition("```python\n")[2].partition("```")[0]
    assert "from bcc import BPF" in example
    code = example.replace("from bcc import BPF", "BPF = None")
    done = subprocess.run(
        [sys.executable, "-c", code, str(1 << 22)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(CHECKOUT)},
    )
    assert (done.returncode, done.stderr) == (1, "4194304: there is no such process\n")


def test_importing_shim_costs_nothing() -> None:
    """What the two functions need is imported when they are called: each start imports us."""
    code = "import sys; before = set(sys.modules); import shim; print(set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "{'shim'}\n"
