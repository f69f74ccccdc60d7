"""Whether containers still start, asked before and after a change, on real hosts over ssh."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shim.catalog import kernel_injected
from support import hosts
from support.checkout import CHECKOUT
from support.leftovers import stays
from support.managed import ask

PROFILE = "/etc/docker/seccomp.json"
TEXT = (CHECKOUT / "profiles/docker/default.json").read_text()
RUNC, CRUN = "/usr/sbin/runc", "/usr/bin/crun"
WHY = "a call that nobody knows"
# As old runtimes refuse a profile with something in it that they do not know.
PICKY = f"""\
#!/bin/sh
for word; do
    if [ "$last" = --bundle ] && grep -q uretprobe "$word/config.json"; then
        echo 'time="now" level=error msg="{WHY}"' >&2
        exit 1
    fi
    last=$word
done
exec {RUNC}.real "$@"
"""
# What it says that it knows, it does not.
LYING = f"""\
#!/bin/sh
case $1 in
features) exit 1 ;;
--version) printf 'runc version 9.9.9\\nlibseccomp: 99.0.0\\n' ;;
*) exec {RUNC}.real "$@" ;;
esac
"""
BROKEN = "#!/bin/sh\necho broken >&2\nexit 1\n"
RUNCS = {"picky": PICKY, "lying": LYING, "broken": BROKEN}
LEFT = "find /tmp /run -name 'seccomp-shim-look*'; pgrep -lx 'runc|crun|cat'"
GROUPS = "find /sys/fs/cgroup -name 'seccomp-shim-look*'"  # which are the whole machine's


@dataclass
class Managed:
    """Hosts, and the inventory that names them."""

    fleet: hosts.Fleet
    inventory: Path

    def patch(self, name: str, *words: str, **given: Any) -> dict[str, Any]:
        """Ask one host for the state of its profiles, and for its health."""
        asked = {"path": PROFILE, "verify": True, **given}
        before, groups = self.left(name, LEFT), self.left(name, GROUPS)
        result = ask(self.inventory, "seccomp_shim_profile", *words, hosts=name, given=asked)[name]
        assert self.left(name, LEFT) <= before
        assert not stays(self.left(name, GROUPS) - groups)
        return result

    def left(self, name: str, command: str) -> set[str]:
        """Return what looks have left; runs of these tests that were killed leave some, too."""
        return set(self.fleet[name].run(command, code=None).stdout.splitlines())


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    """Yield a host that is well, and some whose runc is picky, lies, or is broken already."""
    scratch = tmp_path_factory.mktemp("fleet")
    with hosts.fleet(scratch, ("well", *RUNCS)) as fleet:
        for each in fleet.values():
            each.write(PROFILE, TEXT)
            each.states(uretprobe="filtered")
        for name, script in RUNCS.items():
            fleet[name].run(f"cp {RUNC} {RUNC}.real; rm {RUNC}")
            fleet[name].write(RUNC, script, 0o755)
        yield Managed(fleet, fleet.inventory(scratch / "hosts.json"))


def _started(look: dict[str, Any]) -> dict[str, bool]:
    assert {each["profile"] for each in look["containers"]} == {PROFILE}
    return {each["how"]: each["started"] for each in look["containers"]}


def test_a_host_that_stays_well_says_so(managed: Managed) -> None:
    """Containers start under the old profile and the new one, and have the filter they should."""
    foretold = managed.patch("well", "--check")
    assert (foretold["changed"], foretold["failed"]) == (True, False)
    assert _started(foretold["health"]["before"]) == {RUNC: True, CRUN: True}
    assert (foretold["health"]["after"], foretold["health"]["regressions"]) == (None, [])

    made = managed.patch("well")
    assert (made["changed"], made["failed"], made["problems"]) == (True, False, [])
    health = made["health"]
    assert health["before"] == foretold["health"]["before"]
    assert health["regressions"] == []
    assert _started(health["after"]) == {RUNC: True, CRUN: True}
    for container in health["after"]["containers"]:
        assert container["calls"].keys() == kernel_injected().keys()
        assert all(each["verdict"] == each["expected"] for each in container["calls"].values())
    assert (health["after"]["engines"], health["after"]["not_tried"]) == ([], 0)

    again = managed.patch("well")
    assert (again["changed"], again["health"]["after"]) == (False, None)

    back = managed.patch("well", state="rolled_back")
    assert (back["changed"], back["failed"]) == (True, False)
    assert _started(back["health"]["after"]) == {RUNC: True, CRUN: True}
    assert managed.fleet["well"].read(PROFILE) == TEXT.encode()


def test_a_runtime_that_refuses_the_new_profile_is_a_regression(managed: Managed) -> None:
    """The task fails with the reason and tells all the same what it has changed."""
    line = f"{RUNC}: no container starts under {PROFILE} any more: {WHY}"
    made = managed.patch("picky")
    assert (made["failed"], made["changed"]) == (True, True)
    assert made["msg"] == line
    assert [(each["file"], each["result"]) for each in made["files"]] == [(PROFILE, "patched")]
    assert made["run"]
    assert made["problems"] == made["health"]["regressions"] == [line]
    assert _started(made["health"]["before"]) == {RUNC: True, CRUN: True}
    assert _started(made["health"]["after"]) == {RUNC: False, CRUN: True}
    assert b"uretprobe" in managed.fleet["picky"].read(PROFILE)

    back = managed.patch("picky", state="rolled_back")
    assert (back["failed"], back["problems"]) == (False, [])
    assert _started(back["health"]["after"]) == {RUNC: True, CRUN: True}


def test_a_filter_that_is_not_what_it_should_be_is_a_regression(managed: Managed) -> None:
    """A runtime that should know the call and drops it all the same is found out by its filter."""
    made = managed.patch("lying")
    assert (made["failed"], made["changed"]) == (True, True)
    under = f"{RUNC}: a container under {PROFILE}"
    assert made["problems"] == [f"{under} has ERRNO(1) for uretprobe, not ALLOW"]
    assert _started(made["health"]["after"]) == {RUNC: True, CRUN: True}


def test_what_was_broken_before_is_no_regression(managed: Managed) -> None:
    """A runtime that starts nothing is told with the reason, and keeps nobody from patching."""
    made = managed.patch("broken")
    assert (made["failed"], made["changed"], made["problems"]) == (False, True, [])
    for look in (made["health"]["before"], made["health"]["after"]):
        assert _started(look) == {RUNC: False, CRUN: True}
        [reason] = [each["reason"] for each in look["containers"] if each["how"] == RUNC]
        assert reason == "broken"


def test_nobody_is_looked_at_unasked(managed: Managed) -> None:
    """Without the option there is no health in the answer; a host without runs has it, too."""
    assert "health" not in managed.patch("well", "--check", verify=False)
    nothing = managed.patch("well", path="/srv", state="rolled_back")
    assert nothing["health"]["before"]["containers"] == []
    assert nothing["health"]["after"] is None
