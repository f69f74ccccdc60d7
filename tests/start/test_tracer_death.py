"""Whatever happens to the tracer, at whichever step: no container is left stopped or open."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

import shim
from shim.host.ptrace import installed_filters
from support import auditlog
from support.containers import (
    DENIED,
    LET_THROUGH,
    Lab,
    real,
)

# What is announced is settled by whoever looks at the log next.
TOLD = {"adjusting", "adjusted"}

# The hook itself, and in its tracer a profiler that counts what it does to the outside, ptrace and
# file calls, and ends it before the one asked for: by SIGKILL or by an exception.
KILLING_HOOK = """#!/usr/bin/python3 -IS
import sys
sys.path.insert(0, "@PACKAGE_DIR@")
import os
HOOK = os.getpid()
phase, at, how, marker = os.environ["END_AT"].split(":")
count = 0 if phase == "follow" else None
OPS = {"pread", "pwrite", "open", "read", "write", "close", "flock", "fstat", "alarm", "unlink"}
def profiler(frame, event, arg):
    global count
    if os.getpid() == HOOK:
        return
    code = frame.f_code
    if event == "call" and code.co_name == "__init__" and code.co_filename.endswith("/memory.py"):
        count = count or 0
    known = event == "call" and frame.f_code.co_name == "ptrace"
    if count is not None and (known or event == "c_call" and arg.__name__ in OPS):
        count += 1
        if count == int(at):
            open(marker, "w").close()
            if how == "kill":
                os.kill(os.getpid(), 9)
            raise RuntimeError("ended by the test")
sys.setprofile(profiler)
from shim.start.hooks.prestart import main
os._exit(main(sys.argv))
"""


@pytest.fixture(params=["runc", "crun"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Lab:
    """Return a directory with the killing hook for each runtime."""
    lab = Lab(tmp_path, real(request.param))
    package = Path(shim.__file__).parent.parent
    lab.hook.write_text(KILLING_HOOK.replace("@PACKAGE_DIR@", str(package)))
    return lab


def end_at(lab: Lab, phase: str, step: int, how: str, on_error: str) -> bool:
    """Start a container whose tracer ends before ``step``; tell whether it came so far."""
    marker = lab.folder / "ended"
    marker.unlink(missing_ok=True)
    lab.log_path.unlink(missing_ok=True)
    hooks = lab.hooks(env=[f"END_AT={phase}:{step}:{how}:{marker}"])
    where = f"{phase} step {step} by {how}, on_error {on_error}"
    with lab.container(hooks=hooks) as container:
        assert container.process.stdout is not None
        if container.process.stdout.readline() == "ready\n":
            pid = container.ready_pid()
            filters = installed_filters(pid)
            assert len(filters) == 1, f"{where}: {len(filters)} filters"
            seen = container.outcomes()
            if marker.exists() and on_error == "allow":
                assert seen in (DENIED, LET_THROUGH), where
            else:
                assert seen == LET_THROUGH, where
            if seen == LET_THROUGH:
                told = auditlog.told(lab.log_path, container.name)
                assert TOLD.intersection(told[:1]), f"{where}: adjusted without a line"
        else:
            container.process.communicate()
            assert on_error == "deny", f"{where}: the container did not start"
            assert container.process.returncode != 0, where
    return marker.exists()


def follow_steps() -> Iterator[int]:
    """Return each of the first steps, then every 80th: one stop is like another."""
    return itertools.chain(range(1, 16), range(16, 1600, 80))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "raise"])
@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_ended_while_it_follows(lab: Lab, how: str, on_error: str) -> None:
    """Ended before the filter is found, it leaves a container as it was, or none."""
    lab.configure(on_error)
    reached = [end_at(lab, "follow", step, how, on_error) for step in follow_steps()]
    assert reached[:10] == [True] * 10
    assert not reached[-1]


def test_ended_as_soon_as_it_holds_the_thread(lab: Lab) -> None:
    """The first steps of all, killed: the container starts as it was."""
    assert [end_at(lab, "follow", step, "kill", "allow") for step in (1, 2, 3)] == [True] * 3


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "raise"])
@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_ended_at_every_step_of_the_rewrite(lab: Lab, how: str, on_error: str) -> None:
    """From finding the filter to letting go, each single step may be the last."""
    lab.configure(on_error)
    for step in itertools.count(1):
        if not end_at(lab, "rewrite", step, how, on_error):
            break
    assert step > 20


# A runtime that brings filters of its own, so many that only the kernel's limit for all filters of
# a process together (MAX_INSNS_PER_PATH, kernel/seccomp.c) is left for the container's.
FILLED_RUNTIME = """#!/usr/bin/python3 -IS
import sys
sys.path.insert(0, "@PACKAGE_DIR@")
import os
from shim.host import libc
filler = int(open("@FOLDER@/filler").read())
ret = bytes((6, 0, 0, 0, 0, 0, 0xFF, 0x7F))
add = bytes((4, 0, 0, 0, 1, 0, 0, 0))
while filler > 1:
    length = min(filler, 4000)
    libc.set_filter(add * (length - 1) + ret)
    filler -= length
os.execv("@RUNTIME@", ["@RUNTIME@", *sys.argv[1:]])
"""


def test_a_filter_that_only_the_kernel_refuses(tmp_path: Path) -> None:
    """Where five more instructions are too many for the kernel, the container keeps its own filter.

    Filling is searched by halves for the most that a container without the hook can start under.
    """
    runc = real("runc")
    (tmp_path / "bin").mkdir()
    runtime = tmp_path / "bin" / "runc"
    package = str(Path(shim.__file__).parent.parent)
    text = FILLED_RUNTIME.replace("@PACKAGE_DIR@", package)
    runtime.write_text(text.replace("@FOLDER@", str(tmp_path)).replace("@RUNTIME@", runc))
    runtime.chmod(0o755)
    lab = Lab(tmp_path, str(runtime))

    def starts(filler: int) -> bool:
        (tmp_path / "filler").write_text(str(filler))
        with lab.container() as container:
            output, _ = container.process.communicate("\n")
            return "ready" in output

    low, high = 0, 33_000
    assert starts(low)
    assert not starts(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if starts(middle) else (low, middle)
    (tmp_path / "filler").write_text(str(low))
    with lab.container(hooks=lab.hooks()) as container:
        container.ready()
        assert container.outcomes() == DENIED
    assert lab.log()[-1]["event"] == "failed"
    assert "refused the longer filter" in lab.log()[-1]["reason"]
