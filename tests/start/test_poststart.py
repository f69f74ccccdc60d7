"""After the start: whether a container has the filter that it should have."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from shim import abi
from shim.bpf import program
from shim.bpf.program import LD_ABS, RET_K, Insns, allow
from shim.engines.registration import hookfile
from shim.logread import recent
from shim.start.digest import sha256
from shim.start.hooks.poststart import CannotTell, opinion
from support import need
from support.containers import OTHER_TEST_SYSCALL, TEST_SYSCALL, Lab, profile, real
from support.filters import JEQ, X86_64, denying
from support.joined import code
from support.wrapped import WrappedLab

CALLS = {"test_syscall": TEST_SYSCALL}
# poll() is made again as restart_syscall after a stop, and the profile denies that one.
POLLING = """
import select
poll = select.poll()
poll.register(0)
print("ready", flush=True)
poll.poll()
"""


class Verified(Lab):
    """A lab with the poststart hook."""

    def __init__(self, folder: Path, runtime: str) -> None:
        """Render the hook beside the other."""
        super().__init__(folder, runtime)
        self.verify = hookfile.render(folder / "verify", name="seccomp-shim-verify")
        self.configure("allow", None, "log_detail: full")

    def both(self, *, injected: bool = True) -> dict[str, list[dict[str, Any]]]:
        """Return the hooks of a config.json: ours at both ends of the start, or the later one."""
        entry = {"path": str(self.verify), "args": [str(self.verify), *self.options()]}
        return {**(self.hooks() if injected else {}), "poststart": [entry]}

    def options(self) -> list[str]:
        """Return the hook's arguments."""
        return ["--config", f"{self.folder}/config.yaml", "--test-syscall", str(TEST_SYSCALL)]

    def call(self, *options: str, **state: object) -> "subprocess.CompletedProcess[str]":
        """Call the hook as a runtime does."""
        return subprocess.run(
            [self.verify, *(options or self.options())],
            input=json.dumps(state),
            capture_output=True,
            text=True,
            env={},
            timeout=20,
            check=False,
        )

    def verdict(self) -> dict[str, Any]:
        """Wait for the line of the hook, which nobody else waits for."""
        return wait_for_verdict(self)


def wait_for_verdict(lab: Lab) -> dict[str, Any]:
    """Wait until the log has the line of one verification; give it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for line in lab.log():
            if line["event"] == "verified":
                return line
        time.sleep(0.01)
    pytest.fail("nothing was verified")


@pytest.fixture(params=["runc", "crun"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Verified:
    """Return a directory with both hooks for each runtime."""
    return Verified(tmp_path, real(request.param))


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_an_adjusted_container_is_verified(lab: Verified, no_new_privileges: bool) -> None:
    """The line says that it is so, and the program is the one that the tracer read back."""
    with lab.container(hooks=lab.both(), no_new_privileges=no_new_privileges) as container:
        pid = container.ready()
        line = lab.verdict()
        (done,) = [each for each in lab.log() if each["event"] == "adjusted"]
    assert (line["verified"], line["level"]) == (True, "info")
    assert line["after"] == "ALLOW"
    assert (line["container"], line["pid"]) == (container.name, pid)
    assert line["sha256_after"] == done["sha256_after"]


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_container_that_nobody_adjusted_is_loud(lab: Verified, no_new_privileges: bool) -> None:
    """Where the filter denies the call by its default the line is an error, and status finds it."""
    hooks = lab.both(injected=False)
    with lab.container(hooks=hooks, no_new_privileges=no_new_privileges) as container:
        container.ready()
        line = lab.verdict()
    assert (line["verified"], line["level"]) == (False, "error")
    assert line["after"] == "ERRNO(1)"
    assert "the runtime's filter denies it" in line["reason"]
    assert recent(str(lab.log_path), 3600).events == [line]


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_the_wrapper_has_its_containers_verified(tmp_path: Path, runtime: str) -> None:
    """Whatever the mechanism, the wrapper's own entry looks at the result, knowing the program."""
    lab = WrappedLab(tmp_path, real(runtime))
    lab.configure("allow", None, "log_detail: full")
    with lab.container() as container:
        container.ready()
        line = wait_for_verdict(lab)
    assert (line["verified"], line["after"]) == (True, "ALLOW")
    assert line["mechanism"] == ("raw-bpf" if runtime == "crun" else "filter-injection")
    if runtime == "crun":
        assert "the one that was handed over" in line["proof"]


def test_the_program_does_not_notice(lab: Verified) -> None:
    """A program in poll goes on waiting, though its filter forbids to have that call restarted."""
    with lab.container(hooks=lab.both(), args=code(POLLING)) as container:
        pid = container.ready()
        assert lab.verdict()["verified"] is True
        for _ in range(5):
            lab.log_path.unlink()
            lab.call(id=container.name, pid=pid, bundle=str(container.folder))
            lab.verdict()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}/syscall").read_text().split()[0] != "7":  # "running": on its way
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert container.process.poll() is None


def test_a_container_that_ends_at_once(lab: Verified) -> None:
    """What could not be looked at is not said to be wrong."""
    with lab.container(hooks=lab.both(), args=code("")) as container:
        container.process.communicate()
        line = lab.verdict()
    assert line["verified"] in {True, None}
    assert line["level"] == "info"


def test_a_profile_that_means_it(lab: Verified) -> None:
    """Without a filter, and where it denies the call by name, there is nothing to verify."""
    body = profile()
    denial = {"names": [f"test-syscall-{TEST_SYSCALL}"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}
    body["syscalls"] = [*body["syscalls"], denial]
    for seccomp in (None, body):
        with lab.container(seccomp=seccomp) as container:
            pid = container.ready()
            options = [*lab.options(), "--mechanism", "name"]
            lab.call(*options, id=container.name, pid=pid, bundle=str(container.folder))
            lab.call(*options, id="after", pid=os.getpid(), bundle="/no/such")
            line = lab.verdict()
            assert line["container"] == "after"
            lab.log_path.unlink()


def test_a_container_that_is_gone_with_its_bundle(lab: Verified) -> None:
    """What an engine has removed meanwhile is no cause for alarm."""
    lab.call(*lab.options(), id="gone", pid=os.getpid(), bundle="/no/such")
    line = lab.verdict()
    assert (line["level"], line["verified"]) == ("info", None)
    assert line["reason"] == "the container's process has ended"


def test_nobody_waits_for_it(tmp_path: Path) -> None:
    """The hook is back, with its output closed, while the looking still goes on."""
    need.root()
    lab = Verified(tmp_path, "runc")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    config = {"root": {"path": "/"}, "linux": {"seccomp": profile()}}
    (bundle / "config.json").write_text(json.dumps(config))
    with subprocess.Popen(["sleep", "60"]) as unfiltered:
        done = lab.call(id="x", pid=unfiltered.pid, bundle=str(bundle))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert lab.log() == []
        unfiltered.kill()
    line = lab.verdict()
    assert (line["verified"], line["reason"]) == (None, "the container's process has ended")


def test_a_pid_that_is_another_process(lab: Verified) -> None:
    """A process with another root is not the container's, whatever filter it has."""
    with lab.container() as container, subprocess.Popen(["sleep", "60"]) as other:
        container.ready()
        lab.call(id=container.name, pid=other.pid, bundle=str(container.folder))
        line = lab.verdict()
        other.kill()
    assert (line["verified"], line["level"]) == (None, "info")
    assert "its pid is another's" in line["reason"]


@pytest.mark.parametrize(
    ("options", "state"),
    [
        (["--test-syscall", "1"], {}),
        (["--mechanism"], {}),
        ([], {}),
        ([], {"id": "x", "pid": 2, "bundle": "/proc"}),
        ([], {"id": "x", "pid": "2", "bundle": 3}),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, options: list[str], state: dict[str, object]
) -> None:
    """Bad arguments and bad states end in the log, never in a failed start."""
    need.root()
    lab = Verified(tmp_path, "runc")
    done = lab.call("--config", f"{tmp_path}/config.yaml", *(options or lab.options()[2:]), **state)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    if options:
        return  # the settings are not known then, and the log is root's own
    line = lab.verdict()
    assert (line["verified"], line["level"]) == (None, "warning")


def test_a_denial_by_a_later_filter_is_told_and_not_judged() -> None:
    """What is newer than the runtime's filter may be the program's own business."""
    verified, facts = opinion([denying(), denying(TEST_SYSCALL)], 0, CALLS)
    assert verified is None
    assert facts["after"] == "ERRNO(1)"
    assert "loaded itself" in str(facts["reason"])


def test_one_value_of_an_argument_is_enough_to_deny() -> None:
    """A filter that lets the call through with most arguments does not let it through."""
    old = program.decode(denying(TEST_SYSCALL))
    kill: Insns = [(LD_ABS, 0, 0, 16), (JEQ, 0, 1, 7), (RET_K, 0, 0, 0x8000_0000)]
    verified, facts = opinion([denying(TEST_SYSCALL), program.encode([*kill, *old])], 1, CALLS)
    assert verified is False
    assert facts["after"] == "ALLOW or KILL_PROCESS"


def test_filters_from_before_the_runtime_do_count() -> None:
    """A container within another filter has no more than that one lets through."""
    verified, facts = opinion([denying(TEST_SYSCALL), denying(errno=5)], 1, CALLS)
    assert not verified
    assert facts["after"] == "ERRNO(5)"
    assert "an older filter denies it" in str(facts["reason"])


def test_the_strictest_verdict_of_all_filters_counts() -> None:
    """Of errno and kill it is kill, of equal ones the newer: as the kernel chooses."""
    kill = program.encode([(RET_K, 0, 0, abi.SECCOMP_RET_KILL_PROCESS)])
    verdicts = [
        opinion(filters, 2, CALLS)[1]["after"]
        for filters in (
            [denying(TEST_SYSCALL), denying(errno=5), kill],
            [denying(errno=6), denying(errno=5), denying(TEST_SYSCALL)],
            [denying(TEST_SYSCALL), denying(TEST_SYSCALL), denying(TEST_SYSCALL)],
        )
    ]
    assert verdicts == ["KILL_PROCESS", "ERRNO(6)", "ALLOW"]


def test_a_denial_by_name_in_the_program_is_respected() -> None:
    """A verdict of its own for the call is its author's will: told, not an error."""
    tail = program.decode(denying(errno=1))
    named = [
        *tail[:4],
        (JEQ, 0, 1, TEST_SYSCALL),
        (RET_K, 0, 0, abi.SECCOMP_RET_ERRNO | 5),
        *tail[4:],
    ]
    verified, facts = opinion([program.encode(named)], 0, CALLS)
    assert verified is None
    assert "denies it by name" in str(facts["reason"])


def test_another_program_than_the_expected_one_is_wrong() -> None:
    """A filter that lets the call through and is not the one that was made is an error."""
    made = allow(denying(), X86_64, TEST_SYSCALL)
    other = allow(denying(OTHER_TEST_SYSCALL), X86_64, TEST_SYSCALL)
    assert opinion([made], 0, CALLS, sha256(made))[0]
    verified, facts = opinion([other], 0, CALLS, sha256(made))
    assert not verified
    assert "not the one that was handed over" in str(facts["reason"])


def test_without_a_filter_of_the_runtime_nothing_can_be_told() -> None:
    """Filters that were there before it are none of its own."""
    with pytest.raises(CannotTell, match="no filter"):
        opinion([denying()], 1, CALLS)


def test_what_is_no_line_is_passed_over(tmp_path: Path) -> None:
    """Of a log only lines count that say so; a log that is not there has none."""
    log = tmp_path / "audit.jsonl"
    log.write_text(
        'no line, "error"\n[false]\n{"event": "verified", "verified": true, "a": false}\n'
        '{"event": "verified", "verified": false, "container": "new"}\n'
    )
    assert [line["container"] for line in recent(str(log), 3600).events] == ["new"]
    assert recent(str(tmp_path / "none"), 3600).events == []
