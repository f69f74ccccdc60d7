"""``unknown_calls: enosys``: calls that no rule of a profile names get ENOSYS, on every way in."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from shim import abi, configfile
from shim.bpf import program as bpf
from shim.bpf.equivalence import difference
from shim.engines import oci
from shim.errors import LeftAlone
from shim.host import libc
from shim.host.runtimes import Runtime
from shim.profile.compile import program as compiled_program
from shim.profile.docker import DEFAULT_CAPABILITIES, resolve
from shim.profile.unlisted_calls import unnamed
from shim.start.inject.augment import augment, augmented
from shim.start.spec import parse
from shim.start.wrapper.mechanism import change
from support import odd
from support.containers import ENOSYS, EPERM, Lab, real
from support.filters import ALLOW, denying, filters_of, in_child, load
from support.joined import Joiner
from support.modelled import docker
from support.odd import rule
from support.wrapped import WrappedLab

CLONE3, CLOSE_RANGE, FCHMODAT2, MOUNT = 435, 436, 452, 165
WANTED = {CLONE3: ENOSYS, FCHMODAT2: ENOSYS, MOUNT: EPERM}


def _flat(release: str = "20.10.0") -> dict[str, Any]:
    flat = resolve(
        docker(release), capabilities=DEFAULT_CAPABILITIES, machine="x86_64", kernel=(6, 18)
    )
    assert flat is not None
    return flat


def _turn_on(lab: Lab) -> None:
    path = lab.folder / "config.yaml"
    path.write_text(f"{path.read_text()}unknown_calls: enosys\nlog_detail: full\n")
    configfile.compile_file(str(path))


def _run(lab: Lab, *, looked_at: bool = False, **bundle: Any) -> tuple[dict[int, int], bytes]:
    """Run a container under Docker 20.10.0's profile; return its calls' errnos, and its filter."""
    with lab.container(seccomp=_flat(), args=oci.caller(tuple(WANTED)), **bundle) as container:
        (program,) = filters_of(container.ready())
        deadline = time.monotonic() + 60
        while looked_at and not _verified(lab) and time.monotonic() < deadline:
            time.sleep(0.01)
        return container.outcomes(), program


def _verified(lab: Lab) -> list[dict[str, Any]]:
    return [line for line in lab.log() if line["event"] == "verified"]


def _see_that_only_refusals_differ(before: bytes, after: bytes, names: str) -> None:
    """See that EPERM became ENOSYS, of the calls that the log names, and nothing else differs."""
    found = difference(before, after)
    assert found.complete
    unheard, _ = unnamed(_flat())
    changed = set()
    for each in found.changes:
        assert (each.before, each.condition) == (abi.SECCOMP_RET_ERRNO | EPERM, "")
        assert each.after == abi.SECCOMP_RET_ENOSYS
        changed |= set(range(each.nr.low, each.nr.high + 1))
    assert {nr & ~abi.X32_SYSCALL_BIT for nr in changed} == {
        unheard[name] for name in names.split(",")
    }


@pytest.mark.parametrize(
    ("runtime_name", "test_syscall", "mechanism"),
    [
        ("runc", 0, "name"),
        ("runc", 400, "filter-injection"),
        ("crun", 0, "raw-bpf"),
        ("crun", 400, "raw-bpf"),
    ],
)
def test_a_container_through_the_wrapper(
    runtime_name: str, test_syscall: int, mechanism: str, tmp_path: Path
) -> None:
    """By each mechanism: what was EPERM is ENOSYS, and the log says of which calls."""
    lab = WrappedLab(tmp_path, real(runtime_name), test_syscall=test_syscall)
    plain, before = _run(Lab(tmp_path, lab.real))
    assert plain[CLONE3] == EPERM
    _turn_on(lab)
    answers, after = _run(lab, looked_at=True)
    assert answers == WANTED
    (line,) = lab.events("adjusted")
    assert line["mechanism"] == mechanism
    assert ("syscall" in line) == bool(test_syscall)
    if not test_syscall:
        _see_that_only_refusals_differ(before, after, line["enosys"])
    (seen,) = _verified(lab)
    assert seen["verified"] is True, seen


@pytest.mark.parametrize("runtime_name", ["runc", "crun"])
def test_a_container_with_the_hook(runtime_name: str, tmp_path: Path) -> None:
    """By injection, where no name in the profile can be changed any more."""
    lab = Lab(tmp_path, real(runtime_name))
    _, before = _run(lab)
    _turn_on(lab)
    answers, after = _run(lab, hooks=lab.hooks(test_syscall=0))
    assert answers == WANTED
    (line,) = [each for each in lab.log() if each["event"] == "adjusted"]
    assert "syscall" not in line
    assert line["verified"] is True
    _see_that_only_refusals_differ(before, after, line["enosys"])


def test_off_nothing_is_answered_otherwise(tmp_path: Path) -> None:
    """The control: EPERM, which glibc takes for the last word on threads."""
    answers, _ = _run(WrappedLab(tmp_path, real("runc"), test_syscall=0))
    assert answers[CLONE3] == EPERM


def test_a_process_that_joins(joiner: Joiner) -> None:
    """``exec`` gets the same answers as the container would, which was started without us."""
    _turn_on(joiner.wrapped)
    joiner.wrapped.use(0)
    joiner.caller = oci.caller(tuple(WANTED))
    with joiner.joinable(seccomp=_flat()):
        assert joiner.outcomes(plain=True)[CLONE3] == EPERM
        assert joiner.outcomes() == WANTED
    (line,) = joiner.wrapped.events("adjusted")
    assert {"clone3", "close_range"} <= {*line["enosys"].split(",")}


def _by(program: str, release: str, profile: dict[str, Any]) -> tuple[str, Any, Any]:
    text = json.dumps({"ociVersion": "1.0.2", "linux": {"seccomp": profile}})
    runtime = Runtime(f"/x/{program.split(maxsplit=1)[0]}", [], program, release)
    made = change(parse(text), {}, runtime, unknown=True)
    rules = json.loads(made.spec.proved())["linux"]["seccomp"]["syscalls"]
    return made.mechanism, rules, made.facts


@pytest.mark.parametrize(
    ("program", "release", "mechanism"),
    [
        ("runc 1.3.6", "2.6.1", "name"),
        ("runc 1.1.5", "2.5.4", "name"),
        ("runc 1.1.5", "2.4.1", "filter-injection"),
        ("crun 1.28", "2.6.1", "name"),
        ("crun 1.8.1", "2.5.3", "filter-injection"),
    ],
)
def test_the_cheapest_way_that_works(program: str, release: str, mechanism: str) -> None:
    """A name where all are known, or above runc's line; what a rule names is never among them."""
    how, rules, facts = _by(program, release, _flat())
    assert how == mechanism
    if how == "name":
        assert rules[0]["action"] == "SCMP_ACT_ERRNO"
        assert rules[0]["errnoRet"] == ENOSYS
        assert rules[0]["names"] == facts["enosys"].split(",")
        assert set(rules[0]["names"]) <= set(unnamed(_flat())[0])
        # Above its line runc says ENOSYS by itself, and a name there would move the line.
        assert ("fchmodat2" in rules[0]["names"]) == program.startswith("crun")


def test_what_a_rule_names_and_other_defaults_are_left() -> None:
    """A denial by the author stands, also by EPERM; KILL is no errno."""
    named = odd.profile(rule("read", "listns"), rule("clone3", action=odd.ERRNO, errnoRet=1))
    _, rules, _ = _by("crun 1.28", "2.7.0", named)
    assert "clone3" not in rules[0]["names"]
    for other in ("SCMP_ACT_KILL", "SCMP_ACT_TRAP"):
        assert _by("crun 1.28", "2.7.0", odd.profile(rule("read"), default=other))[0] == ""


def test_the_longer_program_is_proven_and_known_again() -> None:
    """The prefix answers these calls alone; what it stands before is found behind it."""
    old = compiled_program(_flat())
    refused, _ = unnamed(_flat())
    calls = {"test-syscall-400": 400}
    for allowed in ({}, calls):
        new, facts = augment(old, allowed, refused)
        assert new.endswith(old)
        assert facts["enosys"] == ",".join(refused)
        assert augmented(new, allowed, refused) == facts
        bpf.check(bpf.decode(new))
        found = difference(old, new)
        after = {each.after for each in found.changes}
        assert after == {abi.SECCOMP_RET_ENOSYS} | ({abi.SECCOMP_RET_ALLOW} if allowed else set())
        with pytest.raises(LeftAlone):
            augment(new, {}, refused)


def test_a_program_that_denies_otherwise_is_left() -> None:
    """Where the default is not EPERM, or the call gets something of its own, it keeps that."""
    refused = {"clone3": CLONE3, "close_range": CLOSE_RANGE}
    with pytest.raises(LeftAlone):
        augment(denying(errno=13), {}, refused)
    program = bpf.allow(denying(), abi.AUDIT_ARCH_X86_64, CLONE3)
    assert augment(program, {}, refused)[1]["enosys"] == "close_range"


def test_of_two_errnos_the_newest_filters_is_returned() -> None:
    """An older filter's EPERM does not keep programs from ENOSYS, nor would one of ours theirs."""

    def one(errno: int) -> bytes:
        value = abi.SECCOMP_RET_ERRNO | errno
        return bpf.encode([*bpf.answering(abi.AUDIT_ARCH_X86_64, CLONE3, value), ALLOW])

    def work(first: int, second: int) -> int:
        load(one(first))
        load(one(second))
        try:
            libc.syscall(CLONE3)
        except OSError as error:
            return error.errno or 0
        return 0

    assert in_child(lambda: work(EPERM, ENOSYS)) == ENOSYS
    assert in_child(lambda: work(ENOSYS, EPERM)) == EPERM
