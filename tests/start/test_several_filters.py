"""An init that loads several filters: what is logged is true of all that are in force.

No runtime that is known does so. The one here is ours, and does it in each of the kernel's ways.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shim import abi
from shim.bpf.program import LD_ABS, RET_K, Insns, encode
from shim.engines import oci
from shim.host import libc
from shim.host.ptrace import Tracee, installed_filters
from start import loader
from support import need
from support.containers import ENOSYS, EPERM, TEST_SYSCALL, Lab, profile, supported
from support.filters import ALLOW, JEQ, JGE, JGT, X86_64
from support.wrapped import WrappedLab, script

EIO = 5
KILLED = 256 - 9  # as the runtime gives it on
MESSAGE = "another filter in force denies it by its default"


def filter_of(answer: int = EPERM, default: int = EPERM) -> str:
    """Return a filter that answers the test syscall and unknown calls; it allows the known."""
    deny = abi.SECCOMP_RET_ERRNO
    insns: Insns = [
        (LD_ABS, 0, 0, 4),
        (JEQ, 0, 6, X86_64),
        (LD_ABS, 0, 0, 0),
        (JGE, 0, 4, 335),
        (JGT, 3, 0, 423),
        (JEQ, 0, 1, TEST_SYSCALL),
        (RET_K, 0, 0, deny | answer if answer else abi.SECCOMP_RET_ALLOW),
        (RET_K, 0, 0, deny | default),
        ALLOW,
    ]
    return encode(insns).hex()


DENIES, LETS, NAMES = filter_of(), filter_of(0), filter_of(EIO)
# The filters, what verified is and of what the reason tells, and what the call ends with.
CASES: list[tuple[list[str], "bool | None", str, int]] = [
    ([DENIES], True, "", ENOSYS),
    ([DENIES, LETS], True, "", ENOSYS),
    ([DENIES, DENIES], False, MESSAGE, EPERM),
    ([DENIES, LETS, DENIES], False, MESSAGE, EPERM),
    ([DENIES, NAMES], None, "of another filter: the filter denies it by name (ERRNO(5)", EIO),
]
WAYS = ["seccomp", "prctl", "tsync"]


class Several:
    """The runtime in a directory, under the hook or behind the wrapper."""

    def __init__(self, folder: Path, *, wrapped: bool, on_error: str = "allow") -> None:
        need.kernel(supported(), "this needs root on x86-64")
        self.folder = folder
        real = script(folder / "real-loader", f'exec {sys.executable} -IS {loader.__file__} "$@"')
        (folder / "lab").mkdir()
        self.lab = (WrappedLab if wrapped else Lab)(folder / "lab", real)
        # A look at the running container is told of whatever it shows.
        self.lab.configure(on_error, None, *(["log_detail: full"] if wrapped else []))
        self.hooks = {} if wrapped else self.lab.hooks()

    def run(self, filters: list[Any]) -> tuple[int, int]:
        """Run a container; return its status and the test syscall's outcome, 0: it never ran."""
        bundle = self.folder / "bundle"
        bundle.mkdir()
        oci.bundle(bundle, profile(), oci.caller([TEST_SYSCALL]), hooks=self.hooks)
        config = json.loads((bundle / "config.json").read_text())
        config["root"]["path"] = "/"
        (bundle / "config.json").write_text(json.dumps(config))
        (bundle / "filters.json").write_text(json.dumps(filters))
        command = [self.lab.runtime, "run", "--bundle", str(bundle), "c1"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            if isinstance(self.lab, WrappedLab):
                self.told("verified")  # a program that has ended cannot be looked at
            output, _ = process.communicate("\n", timeout=60)
        lines = output.split()
        return process.returncode, int(lines[-1]) if lines else 0

    def told(self, *events: str) -> dict[str, Any]:
        """Return the one line of ``events``, waited for where nobody else does."""
        deadline = time.monotonic() + 20
        while not (found := [line for line in self.lab.log() if line["event"] in events]):
            assert time.monotonic() < deadline, self.lab.log()
            time.sleep(0.01)
        (line,) = found
        return line


def loads(ways: "list[str]", *programs: str) -> list[Any]:
    """Return the filters, loaded in one way after the other."""
    return list(zip(itertools.cycle(ways), programs, strict=False))


@pytest.mark.parametrize("wrapped", [False, True], ids=["hook", "wrapper"])
@pytest.mark.parametrize(("programs", "verified", "reason", "ends"), CASES)
def test_verified_tells_of_all_filters(
    tmp_path: Path,
    wrapped: bool,
    programs: list[str],
    verified: "bool | None",
    reason: str,
    ends: int,
) -> None:
    """What comes after the filter that was adjusted counts as well, before the program begins."""
    several = Several(tmp_path, wrapped=wrapped)
    assert several.run(loads(["seccomp"], *programs)) == (0, ends)
    line = several.told("adjusted")
    assert line["verified"] is verified
    assert line["level"] == ("error" if verified is False else "info")
    assert reason in line.get("reason", "")
    if wrapped:
        after = several.told("verified")["verified"]
        assert after is (True if verified else None)


@pytest.mark.parametrize("ways", list(itertools.permutations(WAYS, 2)))
def test_in_whatever_way_they_are_loaded(tmp_path: Path, ways: "tuple[str, ...]") -> None:
    """prctl, seccomp, and all threads at once."""
    several = Several(tmp_path, wrapped=False)
    assert several.run(loads(list(ways), DENIES, DENIES)) == (0, EPERM)
    assert several.told("adjusted")["verified"] is False


@pytest.mark.parametrize(
    ("programs", "ends", "events"),
    [([LETS], ENOSYS, ["left-alone"]), ([LETS, DENIES], EPERM, ["failed"])],
)
def test_a_first_filter_that_lets_the_call_through(
    tmp_path: Path, programs: list[str], ends: int, events: list[str]
) -> None:
    """It needs nothing, but it is not the last word."""
    several = Several(tmp_path, wrapped=False)
    assert several.run(loads(["seccomp"], *programs)) == (0, ends)
    assert [line["event"] for line in several.lab.log()] == events


@pytest.mark.parametrize(
    ("programs", "expected"),
    [
        ([DENIES], (0, ENOSYS)),
        ([DENIES, DENIES], (KILLED, 0)),
        ([LETS, DENIES], (KILLED, 0)),
        ([DENIES, NAMES], (0, EIO)),
    ],
)
def test_deny_ends_what_would_run_without_the_adjustment(
    tmp_path: Path, programs: list[str], expected: tuple[int, int]
) -> None:
    """With ``on_error: deny`` the process is gone before its program begins; a name is no error."""
    several = Several(tmp_path, wrapped=False, on_error="deny")
    assert several.run(loads(["seccomp"], *programs)) == expected


@pytest.mark.parametrize(
    ("on_error", "expected", "event", "end"),
    [
        ("allow", (0, EPERM), "failed", "and is let go as it is"),
        ("deny", (KILLED, 0), "refused", "and is killed"),
    ],
)
def test_an_init_that_loads_none_in_time(
    tmp_path: Path, on_error: str, expected: tuple[int, int], event: str, end: str
) -> None:
    """It goes on as it would without us or, with ``on_error: deny``, is killed: the log says so."""
    several = Several(tmp_path, wrapped=False, on_error=on_error)
    hook = several.lab.hook.read_text()
    soon = "    from shim.start.inject import tracer\n    tracer.FOLLOW_SECONDS = 1\n"
    line = "    from shim.start.hooks.prestart import main\n"
    assert line in hook
    several.lab.hook.write_text(hook.replace(line, soon + line))
    assert several.run([("pause", 3), ("seccomp", DENIES)]) == expected
    told = several.told("failed", "refused")
    assert told["event"] == event
    assert told["reason"].endswith(f"loaded no filter within 1 seconds, {end}")


def test_filters_are_told_the_newest_first() -> None:
    """Whichever way the kernel counts them."""
    need.root()
    programs = [encode([ALLOW] * length) for length in (1, 2, 3)]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        for program in programs:
            libc.set_filter(program)
        os.close(writer)
        os._exit(len(os.read(reader, 1)))
    while "Seccomp_filters:\t3\n" not in Path(f"/proc/{child}/status").read_text():
        time.sleep(0.001)
    assert installed_filters(child) == programs[::-1]
    os.write(writer, b"g")
    os.waitpid(child, 0)


def test_an_init_that_waits_for_its_start_is_let_go() -> None:
    """Who does not begin its program in time is stopped once, and goes on untraced."""
    need.root()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reader, 1)
        os._exit(7)
    tracee = Tracee(child, abi.PTRACE_O_TRACEEXEC)
    assert not tracee.to_exec(0.05)
    tracee.detach()
    assert "TracerPid:\t0\n" in Path(f"/proc/{child}/status").read_text()
    os.write(writer, b"g")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.slow
def test_hours_between_create_and_start(tmp_path: Path) -> None:
    """The line says that nothing can be told of what is loaded when the init goes on at last."""
    several = Several(tmp_path, wrapped=False)
    filters = [("seccomp", DENIES), ("pause", 7), ("seccomp", DENIES)]
    assert several.run(filters) == (0, EPERM)
    line = several.told("adjusted")
    assert (line["verified"], line["level"]) == (None, "info")
    assert "has not begun" in line["reason"]
