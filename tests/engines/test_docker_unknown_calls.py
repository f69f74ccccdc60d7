"""``unknown_calls: enosys`` for containers of Docker: the wrapper, or a profile that says so."""

import json
from typing import Any

import pytest

from shim.engines.docker import builtin
from shim.engines.docker.choose import RUNTIME, Daemon, Request, choose
from shim.engines.docker.daemon_facts import wanting
from shim.profile.unlisted_calls import named
from support.profiles import ALLOW

EXEMPT = {"uretprobe": "exempt", "uprobe": "exempt"}


def _daemon(version: str = "20.10.0", **facts: Any) -> Daemon:
    known, reason = builtin.profile(version)
    plain = Daemon(version, EXEMPT, libseccomp="2.6.0", builtin=known, builtin_reason=reason)
    return wanting(Daemon(**{**_fields(plain), **facts}), {"unknown_calls": "enosys"})


def _fields(daemon: Daemon) -> dict[str, Any]:
    return {name: getattr(daemon, name) for name in Daemon.__slots__}


def test_off_an_exempt_kernel_calls_for_nothing() -> None:
    """The control: the setting is what makes the difference."""
    off = wanting(_daemon(), {"unknown_calls": "default"})
    assert choose(off, Request()).action == "nothing"


def test_the_registered_wrapper_is_asked_for() -> None:
    """It looks at the very profile and at its own settings when the container starts."""
    choice = choose(_daemon(runtimes=frozenset({"runc", RUNTIME})), Request())
    assert (choice.action, choice.value) == ("runtime", RUNTIME)
    assert choice.reason == "for calls that no rule names"


def test_without_it_the_profile_answers_so() -> None:
    """Nothing is allowed, and what the daemon's own profile has is in it as before."""
    choice = choose(_daemon(), Request())
    assert choice.action == "profile"
    assert choice.reason == "ENOSYS for calls that no rule names"
    tree = json.loads(choice.value)
    own, _ = builtin.profile("20.10.0")
    assert own is not None
    own_rules: Any = own.tree["syscalls"]
    [rule] = [rule for rule in tree["syscalls"] if rule not in own_rules]
    assert len(tree["syscalls"]) == len(own_rules) + 1
    assert (rule["action"], rule["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    assert "clone3" in rule["names"]
    assert named(own.tree, own.format.names_of).isdisjoint(rule["names"])


@pytest.mark.parametrize("default", ["SCMP_ACT_KILL", ALLOW])
def test_a_profile_of_another_default_is_left(default: str) -> None:
    """Its author did not say EPERM of calls that he does not name."""
    profile = json.dumps(
        {"defaultAction": default, "syscalls": [{"names": ["read"], "action": ALLOW}]}
    )
    assert choose(_daemon(), Request([f"seccomp={profile}"])).action == "nothing"
