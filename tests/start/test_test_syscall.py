"""The test syscall is let through as well as the real calls, never in place of them."""

from pathlib import Path

import pytest

from shim.engines import oci
from shim.start.session import needed_calls
from support import need
from support.containers import ENOSYS, EPERM, OTHER_TEST_SYSCALL, TEST_SYSCALL
from support.wrapped import WrappedLab, apart

NAME = f"test-syscall-{TEST_SYSCALL}"
LAST = 402


def believing(lab: WrappedLab, state: str) -> None:
    """Have the wrapper believe that this kernel has another call, in that state."""
    told = (
        "    import shim.host.cache\n"
        f'    state = {{"nr": {OTHER_TEST_SYSCALL}, "state": "{state}"}}\n'
        '    shim.host.cache.facts = lambda: {"syscalls": {"uretprobe": state}}\n'
    )
    line = "    from shim.start.wrapper.main import main\n"
    apart(lab.wrapper, lab.folder / "run")
    text = lab.wrapper.read_text()
    assert line in text
    lab.wrapper.write_text(text.replace(line, told + line))


@pytest.mark.parametrize("runtime", ["runc", "crun"])
@pytest.mark.parametrize(("state", "outcome"), [("filtered", ENOSYS), ("exempt", EPERM)])
def test_both_are_let_through(tmp_path: Path, runtime: str, state: str, outcome: int) -> None:
    """On a kernel that kills a host with a forgotten line is protected; the log has both."""
    need.root()
    lab = WrappedLab(tmp_path, need.program(runtime))
    believing(lab, state)
    with lab.container(args=[*oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL, LAST))]) as container:
        container.ready()
        assert container.outcomes() == {
            TEST_SYSCALL: ENOSYS,
            OTHER_TEST_SYSCALL: outcome,
            LAST: EPERM,
        }
    [line] = lab.events("adjusted")
    calls = {NAME, "uretprobe"} if outcome == ENOSYS else {NAME}
    assert set(line["syscall"].split(",")) == calls


def test_without_one_nothing_is_added() -> None:
    """Where none is set, the calls and the states are those of the kernel."""
    needed, states, _ = needed_calls(0)
    assert not any(name.startswith("test-syscall") for name in (*needed, *states))
    assert needed_calls(TEST_SYSCALL)[0] == {**needed, NAME: TEST_SYSCALL}
