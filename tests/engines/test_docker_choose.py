"""What one container of a Docker daemon needs: the runtime, a profile by name, or nothing."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.bpf.equivalence import difference
from shim.catalog import kernel_injected
from shim.cli.when_option import VALUES
from shim.engines.docker import builtin
from shim.engines.docker.choose import (
    RUNTIME,
    Daemon,
    Request,
    checked,
    choose,
    seccomp_option,
)
from shim.errors import ShimError
from shim.profile.compile import program
from shim.profile.docker import DEFAULT_CAPABILITIES, resolve
from shim.profile.document import Document, read
from shim.profile.edit import WHEN, When, plan
from support.profiles import ALLOW, CONFIG, DOCKER, ruled, texts

FILTERED = {"uretprobe": "filtered", "uprobe": "absent"}
EXEMPT = {"uretprobe": "exempt", "uprobe": "exempt"}
UNKNOWN = {"uretprobe": "unknown", "uprobe": "unknown"}
TEST_SYSCALL = {"test-syscall-400": "filtered"}
NEW, OLD = "2.6.0", "2.5.4"
BOTH = frozenset({"runc", RUNTIME})


def _daemon(version: str = "26.1.5+dfsg1", **facts: Any) -> Daemon:
    """Return an affected host's daemon whose runtime knows the names."""
    known, reason = builtin.profile(version)
    plain = Daemon(version, FILTERED, libseccomp=NEW, builtin=known, builtin_reason=reason)
    return replace(plain, **facts)


def _opt(profile: object) -> Request:
    return Request([f"seccomp={profile if isinstance(profile, str) else json.dumps(profile)}"])


def _flat(document: Document) -> dict[str, Any] | None:
    return resolve(
        document.tree, capabilities=DEFAULT_CAPABILITIES, machine="x86_64", kernel=(6, 12)
    )


@pytest.mark.parametrize(
    ("facts", "asked", "action", "reason"),
    [
        # The least that works.
        ({}, Request(), "profile", "uretprobe allowed by name"),
        ({"runtimes": BOTH}, Request(), "runtime", "for uretprobe"),
        ({"runtimes": BOTH, "libseccomp": OLD}, Request(), "runtime", "for uretprobe"),
        ({"libseccomp": OLD}, Request(), "nothing", "2.5.4 does not know uretprobe; `seccomp-shim"),
        ({"libseccomp": None}, Request(), "nothing", "cannot be told from here; `seccomp-shim"),
        ({"states": TEST_SYSCALL, "runtimes": BOTH}, Request(), "runtime", "for test-syscall-400"),
        ({"states": TEST_SYSCALL}, Request(), "nothing", "no profile can name test-syscall-400"),
        # Nothing is needed.
        ({"states": EXEMPT}, Request(), "nothing", "does not call for it: uretprobe exempt"),
        ({"states": EXEMPT, "runtimes": BOTH}, Request(), "nothing", "does not call for it"),
        ({"states": UNKNOWN}, Request(), "nothing", "cannot be told from here"),
        ({"states": UNKNOWN, "runtimes": BOTH}, Request(), "runtime", "for uretprobe"),
        ({"runtimes": BOTH, "default_runtime": RUNTIME}, Request(), "nothing", "already"),
        ({"machine": "aarch64"}, Request(), "nothing", "runs on aarch64"),
        ({"machine": "windows"}, Request(), "nothing", "runs on windows"),
        ({"seccomp": False, "runtimes": BOTH}, Request(), "nothing", "without seccomp"),
        ({"confines": False, "runtimes": BOTH}, Request(), "nothing", "default is seccomp=unconf"),
        ({"confines": False}, _opt("builtin"), "profile", "by name"),
        # What the user asked for.
        ({"runtimes": BOTH}, Request(privileged=True), "nothing", "privileged: it has no filter"),
        ({"runtimes": BOTH}, _opt("unconfined"), "nothing", "seccomp=unconfined"),
        ({"runtimes": BOTH}, Request(runtime="runc"), "nothing", "runc was asked for by name"),
        ({}, Request(runtime=RUNTIME), "nothing", "was asked for by name"),
        ({}, _opt(DOCKER), "profile", "by name"),
        ({"runtimes": BOTH}, _opt(DOCKER), "runtime", "for uretprobe"),
        ({}, _opt(ruled({"action": "SCMP_ACT_ERRNO"})), "nothing", "denied by name"),
        ({"runtimes": BOTH}, _opt(ruled({"action": "SCMP_ACT_KILL"})), "nothing", "denied by name"),
        ({}, _opt(ruled({"action": ALLOW})), "nothing", "allowed already"),
        ({"libseccomp": OLD}, _opt(ruled({"action": ALLOW})), "nothing", "2.5.4 does not know"),
        ({"libseccomp": OLD, "runtimes": BOTH}, _opt(ruled({"action": ALLOW})), "runtime", "for"),
        ({}, _opt("{nonsense"), "nothing", "the profile asked for:1:2: not valid JSON"),
        ({"runtimes": BOTH}, _opt("{nonsense"), "runtime", "it looks for itself"),
        ({}, Request(["seccomp="]), "profile", "by name"),
        ({"runtimes": BOTH}, _opt(CONFIG), "nothing", "a whole config.json"),
        ({"runtimes": BOTH}, _opt({"syscalls": []}), "nothing", "neither a default action"),
        # The daemon's own default.
        ({"configured": "/etc/p.json"}, Request(), "nothing", "/etc/p.json cannot be read"),
        ({"configured": "/etc/p.json"}, _opt("builtin"), "profile", "by name"),
    ],
)  # fmt: skip
def test_decides(facts: dict[str, Any], asked: Request, action: str, reason: str) -> None:
    """Each case has its action and says why."""
    choice = choose(_daemon(**facts), asked)
    assert (choice.action, reason in choice.reason) == (action, True), choice
    assert (choice.value == RUNTIME) == (action == "runtime")
    assert choice.action == "nothing" or choice.calls


@pytest.mark.parametrize(
    ("version", "libseccomp", "action"),
    [
        ("20.10.24+dfsg1", NEW, "profile"),
        ("28.1.1", NEW, "profile"),
        ("28.2.0", NEW, "nothing"),
        ("28.5.2+dfsg4", NEW, "nothing"),
        ("28.5.2+dfsg4", OLD, "nothing"),
        ("dev", NEW, "nothing"),
        ("99.0.0", NEW, "nothing"),
    ],
)
def test_by_version(version: str, libseccomp: str, action: str) -> None:
    """A daemon that allows the call is left alone; an unknown one is never guessed at."""
    choice = choose(_daemon(version, libseccomp=libseccomp), Request())
    assert choice.action == action
    # Where nothing could be done it says so: what on_error: deny is about.
    assert choice.uncovered == (version in {"dev", "99.0.0"} or libseccomp == OLD)
    assert choose(_daemon(version, libseccomp=OLD, runtimes=BOTH), Request()).action == "runtime"


def test_a_privileged_container_with_a_profile_is_confined_since_27() -> None:
    """A profile that is named holds for privileged containers from Docker 27 on, not before."""
    asked = Request([f"seccomp={json.dumps(DOCKER)}"], privileged=True)
    assert choose(_daemon("27.0.1"), asked).action == "profile"
    for version in ("26.1.5", "20.10.24", "dev"):
        choice = choose(_daemon(version), asked)
        assert (choice.action, choice.uncovered) == ("nothing", False)


def test_the_daemons_own_profile_is_augmented_where_it_can_be_read() -> None:
    """With seccomp-profile set, that profile is what gets the name."""
    own = read(json.dumps(DOCKER).encode(), "/etc/p.json")
    choice = choose(_daemon(configured="/etc/p.json", configured_profile=own), Request())
    assert choice.action == "profile"
    after = json.loads(choice.value)
    # Its newest call is older than ours: the second rule keeps runc's ENOSYS for those in between.
    assert after["syscalls"][2:] == DOCKER["syscalls"]
    assert after["syscalls"][0]["names"] == ["uretprobe"]
    assert after["syscalls"][1]["errnoRet"] == 38


@pytest.mark.parametrize("version", ["20.10.0", "20.10.24+dfsg1", "23.0.0", "24.0.9", "26.1.5"])
def test_the_profile_lets_through_the_call_and_nothing_else(version: str) -> None:
    """The filters of a daemon's profile and of the augmented one differ in uretprobe alone."""
    daemon = _daemon(version)
    choice = choose(daemon, Request())
    assert daemon.builtin is not None
    before = program(_flat(daemon.builtin))
    after = program(_flat(read(choice.value.encode(), "augmented")))
    found = difference(before, after)
    assert found.complete
    assert {(c.arch_name, c.nr_text, c.after) for c in found.changes} == {
        ("x86_64", "335", 0x7FFF0000),
        ("x32", "335", 0x7FFF0000),
    }


def test_always_means_whatever_the_kernel() -> None:
    """With when=always an exempt or unknown kernel is treated like one in need."""
    for states in (EXEMPT, UNKNOWN):
        daemon = _daemon(states=states, libseccomp="2.6.1")
        assert choose(daemon, Request(), "always").calls == ("uretprobe", "uprobe")
    assert choose(_daemon(states=EXEMPT), Request(), "present").action == "profile"
    # A name that the library lacks is not what the choice promises.
    assert choose(_daemon(states=EXEMPT), Request(), "always").calls == ("uretprobe",)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ([], None),
        (["no-new-privileges", "apparmor=unconfined"], None),
        (["seccomp=unconfined"], "unconfined"),
        (["seccomp:unconfined"], "unconfined"),
        (["seccomp=a", "label=disable", "seccomp=b"], "b"),
        (['seccomp={"a": "b=c:d"}'], '{"a": "b=c:d"}'),
        (['seccomp:{"a": "b:c"}'], '{"a": "b:c"}'),
        (["seccomp=x", "seccomp="], ""),
        (["apparmor=seccomp=x"], None),
    ],
)
def test_the_last_seccomp_option_counts(options: list[str], value: str | None) -> None:
    """The options are read as the daemon reads them."""
    assert seccomp_option(options) == value


_states = st.fixed_dictionaries(
    {
        name: st.sampled_from(["absent", "filtered", "exempt", "unknown"])
        for name in ("uretprobe", "uprobe")
    }
)


@given(
    states=_states | st.just(TEST_SYSCALL),
    version=st.sampled_from(["20.10.24", "26.1.5", "28.2.0", "dev"]),
    libseccomp=st.sampled_from([None, OLD, NEW]),
    runtimes=st.sampled_from([frozenset({"runc"}), BOTH]),
    profile=texts | st.sampled_from(["", "builtin", "unconfined", "[]", "{"]),
    privileged=st.booleans(),
    when=st.sampled_from(["needed", "present", "always"]),
)
def test_always_decides(
    states: dict[str, str],
    version: str,
    libseccomp: str | None,
    runtimes: frozenset[str],
    profile: str,
    privileged: bool,
    when: When,
) -> None:
    """Whatever is asked for there is an answer with a reason, and a profile only by name."""
    daemon = _daemon(version, states=states, libseccomp=libseccomp, runtimes=runtimes)
    choice = choose(daemon, Request([f"seccomp={profile}"], privileged=privileged), when)
    assert choice.reason
    if choice.action == "runtime":
        assert RUNTIME in runtimes
    if choice.action == "profile":
        assert libseccomp == NEW
        assert RUNTIME not in runtimes
        read(choice.value.encode(), "the augmented profile")
    if choice.uncovered:
        assert choice.action == "nothing"
        assert choice.calls


@given(
    when=st.sampled_from(WHEN),
    states=st.fixed_dictionaries(
        {name: st.sampled_from(["absent", "filtered", "exempt", "unknown"]) for name in FILTERED}
    ),
)
def test_when_means_what_it_means_to_patch(when: When, states: dict[str, str]) -> None:
    """The calls that a container is given are those that patch would add to its profile."""
    document = read(json.dumps(DOCKER).encode(), "p.json")
    _, findings = plan(document, list(kernel_injected().values()), states, when)
    added = tuple(each.syscall for each in findings if each.changed)
    daemon = _daemon(states=states, libseccomp="99.0.0")
    assert sorted(choose(daemon, _opt(DOCKER), when).calls) == sorted(added)
    assert checked(when) == when


@pytest.mark.parametrize("when", ["", "Needed", "never", "present "])
def test_when_is_one_of_three_words(when: str) -> None:
    """A slip of the pen is told, and is not taken for always."""
    with pytest.raises(ShimError, match="must be one of needed, present, always"):
        checked(when)
    assert VALUES == WHEN
