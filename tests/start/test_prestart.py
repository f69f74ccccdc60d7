"""The hook on real runtimes: a test syscall stands in for the call that the kernel exempts."""

import fcntl
import os
import pty
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shim.bpf.equivalence import difference
from shim.engines import oci
from shim.errors import ShimError
from shim.start.digest import sha256
from support import need
from support.containers import (
    DENIED,
    ENOSYS,
    LET_THROUGH,
    OTHER_TEST_SYSCALL,
    TEST_SYSCALL,
    Container,
    Lab,
    profile,
    run,
)
from support.filters import filters_of


@pytest.fixture
def lab(runtime: str, tmp_path: Path) -> Lab:
    """Return a directory with a rendered hook for each runtime."""
    return Lab(tmp_path, runtime)


def test_without_the_hook_both_test_syscalls_are_denied(lab: Lab) -> None:
    """The control: the profile's default action answers both numbers."""
    assert run(lab) == DENIED


@pytest.mark.parametrize("stage", ["prestart", "createRuntime"])
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_hook_lets_exactly_one_number_through(
    lab: Lab, stage: str, no_new_privileges: bool
) -> None:
    """At either stage, with and without no_new_privileges, one number changes and its twin not."""
    seen = run(lab, hooks=lab.hooks(stage=stage), no_new_privileges=no_new_privileges)
    assert seen == LET_THROUGH


def test_the_installed_filter_is_the_old_one_behind_a_prefix(lab: Lab) -> None:
    """The live process's filter ends in what init was about to load; one call differs.

    A container without the hook shows what is loaded then, as a function: runc orders the rules of
    its program anew at every start.
    """
    with lab.container() as plain:
        (before,) = filters_of(plain.ready())
    with lab.container(hooks=lab.hooks()) as hooked:
        (after,) = filters_of(hooked.ready())
        done = lab.log()[-1]
    assert sha256(after) == done["sha256_after"]
    assert sha256(after[5 * 8 :]) == done["sha256_before"]
    found = difference(before, after)
    assert found.complete
    assert [str(change) for change in found.changes] == [
        f"x86_64 {TEST_SYSCALL}: ERRNO(1) -> ALLOW"
    ]


def test_the_log_says_what_was_changed_and_that_it_was_verified(lab: Lab) -> None:
    """In full, one line before the change and one after it: verdicts, lengths, hashes, proof."""
    lab.configure("allow", None, "log_detail: full")
    with lab.container(hooks=lab.hooks()) as container:
        pid = container.ready()
        announced, done = lab.log()
    assert (announced["event"], done["event"]) == ("adjusting", "adjusted")
    found = done["verified"], done["container"], done["pid"], done["bundle"]
    assert found == (True, container.name, pid, str(container.folder))
    assert os.path.basename(done["runtime"]) == os.path.basename(lab.runtime)
    assert done["kernel"] == os.uname().release
    assert (done["before"], done["after"]) == ("ERRNO(1)", "ALLOW")
    assert done["length_after"] == done["length_before"] + 5
    assert done["sha256_before"] != done["sha256_after"]
    assert {key: done[key] for key in announced if key != "time"}.items() >= {
        key: value for key, value in announced.items() if key not in {"time", "event"}
    }.items()


@pytest.mark.parametrize(
    "flags",
    [
        ["SECCOMP_FILTER_FLAG_LOG"],
        ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
    ],
)
def test_filter_flags_are_passed_on(lab: Lab, flags: list[str]) -> None:
    """A profile with SECCOMP_FILTER_FLAG_* loads with them, augmented like any other.

    A runtime that refuses such profiles by itself (runc before 1.1.6) goes on refusing them.
    """
    refusal = "seccomp flags are not yet supported by runc"
    with lab.container(seccomp=profile(flags=flags)) as plain:
        _, errors = plain.process.communicate("\n")
    if refusal in errors:
        with pytest.raises(ShimError, match=refusal):
            run(lab, seccomp=profile(flags=flags), hooks=lab.hooks())
    else:
        assert run(lab, seccomp=profile(flags=flags), hooks=lab.hooks()) == LET_THROUGH


def test_a_container_with_a_terminal(lab: Lab, tmp_path: Path) -> None:
    """A container with a tty is adjusted like any other."""
    bundle = tmp_path / "tty"
    bundle.mkdir()
    oci.bundle(bundle, profile(), oci.caller((TEST_SYSCALL,)), hooks=lab.hooks(), terminal=True)
    master, slave = pty.openpty()
    name = f"shim-tty-{os.getpid()}"
    process = subprocess.Popen(
        oci.command(lab.runtime, "run", "--bundle", str(bundle), name),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    seen = b""
    told = False
    while part := _read(master):
        seen += part
        if b"ready" in seen and not told:
            os.write(master, b"\n")
            told = True
    assert process.wait() == 0, seen
    assert f"{TEST_SYSCALL} {ENOSYS}" in seen.decode()


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError:  # EIO: the last holder of the other end is gone
        return b""


def test_a_container_without_a_filter_is_left_alone(lab: Lab) -> None:
    """No profile, no adjustment, one line that says why."""
    assert run(lab, seccomp=None, hooks=lab.hooks()) == {
        TEST_SYSCALL: ENOSYS,
        OTHER_TEST_SYSCALL: ENOSYS,
    }
    (line,) = lab.log()
    assert line["event"] == "left-alone"
    assert "unconfined" in line["reason"]


def test_a_profile_that_allows_by_default_is_left_alone(lab: Lab) -> None:
    """A profile that only lists denials needs nothing, and the log says so."""
    open_profile = profile(
        defaultAction="SCMP_ACT_ALLOW",
        syscalls=[{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}],
    )
    run(lab, seccomp=open_profile, hooks=lab.hooks())
    (line,) = lab.log()
    assert (line["event"], "default-allows" in line["reason"]) == ("left-alone", True)


def test_a_profile_for_other_architectures_filters_this_one_too(lab: Lab) -> None:
    """Runtimes always filter the native architecture: the filter decides, not the list."""
    foreign = profile(architectures=["SCMP_ARCH_AARCH64"])
    assert run(lab, seccomp=foreign) == DENIED
    assert run(lab, seccomp=foreign, hooks=lab.hooks()) == LET_THROUGH


def test_a_denial_by_name_is_respected(lab: Lab) -> None:
    """Where the profile's author denies the call, it stays denied, and the log says so."""
    body = profile()
    denial = {"names": [f"test-syscall-{TEST_SYSCALL}"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}
    body["syscalls"] = [*body["syscalls"], denial]
    assert run(lab, seccomp=body, hooks=lab.hooks()) == DENIED
    (line,) = lab.log()
    assert line["event"] == "left-alone"
    assert "explicit-deny" in line["reason"]


def test_the_hook_leaves_nothing_to_do_where_the_kernel_exempts(lab: Lab) -> None:
    """Without a test syscall the hook believes the probe: this kernel's state decides."""
    run(lab, hooks=lab.hooks(test_syscall=0))
    last = lab.log()[-1]
    assert set(last["state"]) == {"uretprobe", "uprobe"}
    if "filtered" in last["state"].values():
        assert last["event"] == "adjusted"
    else:
        assert last["event"] == "left-alone"
        assert "does not let a filter deny" in last["reason"]


def test_twenty_containers_starting_at_once(lab: Lab) -> None:
    """Twenty starts in parallel are all adjusted, each with its own two lines."""
    with ThreadPoolExecutor(20) as pool:
        seen = list(pool.map(lambda _: run(lab, hooks=lab.hooks()), range(20)))
    assert seen == [LET_THROUGH] * 20
    done = [line for line in lab.log() if line["event"] == "adjusted"]
    assert len({line["container"] for line in done}) == 20
    assert all(line["verified"] for line in done)


def test_registered_twice_it_adjusts_once(lab: Lab) -> None:
    """A second registration finds the first at work and does no harm."""
    hooks = {**lab.hooks(stage="prestart"), **lab.hooks(stage="createRuntime")}
    assert run(lab, hooks=hooks) == LET_THROUGH
    assert [line["event"] for line in lab.log()].count("adjusted") == 1


def assert_left_or_refused(container: Container, on_error: str) -> None:
    """Check that it runs under its own filter, or that nothing of it ran, as the admin chose."""
    if on_error == "allow":
        container.ready()
        assert container.outcomes() == DENIED
    else:
        output, _ = container.process.communicate()
        assert container.process.returncode != 0
        assert output == ""


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_a_log_that_cannot_be_written(lab: Lab, on_error: str) -> None:
    """Without its line no adjustment is made: the start is left as it was, or refused."""
    lab.configure(on_error, log=lab.folder / "missing" / "audit.jsonl")
    with lab.container(hooks=lab.hooks()) as container:
        assert_left_or_refused(container, on_error)


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_a_log_that_somebody_keeps_locked(lab: Lab, on_error: str) -> None:
    """Whoever can read the log can lock it: that neither stops an adjustment nor a start."""
    lab.configure(on_error)
    with lab.log_path.open("w") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with lab.container(hooks=lab.hooks()) as container:
            container.ready()
            assert container.outcomes() == LET_THROUGH
    assert [line["event"] for line in lab.log()] == ["adjusted"]


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_when_ptrace_is_forbidden(lab: Lab, on_error: str) -> None:
    """A hook without CAP_SYS_PTRACE cannot trace: the start is left as it was, or refused."""
    setpriv = need.program("setpriv")
    lab.configure(on_error)
    without = [setpriv, "--bounding-set=-sys_ptrace", "--inh-caps=-all", "--"]
    with lab.container(hooks=lab.hooks(argv=without)) as container:
        if on_error == "allow":
            container.ready()
            assert container.outcomes() == DENIED
            assert lab.log()[-1]["event"] == "failed"
        else:
            _, errors = container.process.communicate()
            assert container.process.returncode != 0
            if os.path.basename(lab.runtime) == "runc":  # crun keeps a hook's words to itself
                assert "start refused (on_error: deny)" in errors
            assert lab.log()[-1]["event"] == "refused"
        assert "cannot trace" in lab.log()[-1]["reason"]


def test_a_filter_of_full_length_is_left_as_it_is(lab: Lab) -> None:
    """Where 4096 instructions leave no room for the prefix the container keeps its own filter."""
    # Rules with six arguments add the most instructions each, plain ones the fewest: libseccomp
    # takes long over many rules.
    large, small = (
        [
            {
                "names": ["kcmp"],
                "action": "SCMP_ACT_ALLOW",
                "args": [
                    {"index": index, "value": n << 33 | n, "op": "SCMP_CMP_EQ"}
                    for index in range(arguments)
                ],
            }
            for n in range(first, first + 400)
        ]
        for arguments, first in ((6, 1), (1, 1001))
    )
    rules: list[dict[str, Any]] = large[: _most(lab, [], large)]
    rules += small[: _most(lab, rules, small[:20])]
    plain: list[dict[str, Any]] = [
        {"names": [name], "action": "SCMP_ACT_ALLOW"} for name in _UNUSED
    ]
    rules += plain[: _most(lab, rules, plain)]
    assert run(lab, seccomp=_with(rules), hooks=lab.hooks()) == DENIED
    assert lab.log()[-1]["event"] == "failed"
    assert "no room" in lab.log()[-1]["reason"]


_UNUSED = (
    "acct", "bpf", "chroot", "delete_module", "fanotify_init", "init_module", "kexec_load",
    "mount", "pivot_root", "quotactl", "reboot", "setns", "swapon", "syslog", "unshare",
)  # fmt: skip


def _with(rules: list[dict[str, Any]]) -> dict[str, Any]:
    body = profile(architectures=["SCMP_ARCH_X86_64"])
    return body | {"syscalls": body["syscalls"] + rules}


def _most(lab: Lab, base: list[dict[str, Any]], more: list[dict[str, Any]]) -> int:
    """Find by halves how many of ``more`` a container without the hook still starts with."""
    low, high = 0, len(more) + 1
    while high - low > 1:
        middle = (low + high) // 2
        with lab.container(seccomp=_with(base + more[:middle])) as container:
            output, _ = container.process.communicate("\n")
        low, high = (middle, high) if "ready" in output else (low, middle)
    return low


BAD_STATES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"pid": 1}',
    b'{"id": "x", "pid": "12", "bundle": "/"}',
    b'{"id": "x", "pid": -1, "bundle": "/"}',
    b'{"id": "x", "pid": 99999999, "bundle": "/nowhere"}',
    b'{"id": "x", "pid": 2, "bundle": 3}',
    b"\xff\xfe",
    b"[" * 100_000,
]


@pytest.mark.parametrize("state", BAD_STATES)
@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_bad_state_is_one_line_and_the_admins_choice(
    tmp_path: Path, state: bytes, on_error: str
) -> None:
    """Whatever arrives on standard input, the answer is one clear line, logged, by on_error."""
    lab = Lab(tmp_path, "runc")
    lab.configure(on_error)
    (command,) = lab.hooks()["prestart"]
    done = subprocess.run(
        command["args"], input=state, capture_output=True, env={}, timeout=20, check=False
    )
    assert done.returncode == (0 if on_error == "allow" else 1)
    assert done.stderr.count(b"\n") == 1
    assert b"Traceback" not in done.stderr
    (line,) = lab.log()
    assert line["event"] == ("failed" if on_error == "allow" else "refused")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--test-syscall", "1"],
        ["--test-syscall", "335"],
        ["--config", "x"],
        ["-h"],
        ["--test-syscall"],
    ],
)
def test_bad_arguments_are_refused_with_the_usage(tmp_path: Path, arguments: list[str]) -> None:
    """Only a test syscall number may be asked for, and only an absolute path is a path."""
    lab = Lab(tmp_path, "runc")
    done = subprocess.run([str(lab.hook), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: seccomp-shim-hook" in done.stderr


KILL_INIT = """
import json, os, sys
os.kill(json.load(sys.stdin)["pid"], 9)
"""


def test_an_init_that_dies_first(lab: Lab) -> None:
    """When something else kills the init, the runtime fails as it would and the tracer ends."""
    hooks = lab.hooks()
    python = os.path.realpath(sys.executable)
    killer = {"path": python, "args": [python, "-c", KILL_INIT]}
    with lab.container(hooks={"prestart": [*hooks["prestart"], killer]}) as container:
        assert container.process.communicate()[0] == ""
        assert container.process.returncode != 0
    deadline = time.monotonic() + 10
    while not lab.log() and time.monotonic() < deadline:
        time.sleep(0.01)
    (line,) = lab.log()
    assert (line["event"], line["level"]) == ("left-alone", "info")
    assert "ended before it loaded a filter" in line["reason"]


def test_the_thread_is_not_left_traced(lab: Lab) -> None:
    """Once the program runs nobody traces it, and no tracer process is left behind."""
    with lab.container(hooks=lab.hooks()) as container:
        assert "TracerPid:\t0\n" in Path(f"/proc/{container.ready()}/status").read_text()
        command = ["pgrep", "-f", str(lab.hook)]
        assert subprocess.run(command, capture_output=True, check=False).stdout == b""
