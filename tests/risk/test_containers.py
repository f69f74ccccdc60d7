"""Which running container a name means: root's before a user's, found without tracing anybody."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim import cli
from shim.errors import ShimError
from shim.risk import live_filters
from shim.risk.container_names import Known
from shim.risk.containers import chosen, running
from shim.risk.groups import PLAIN, Place
from shim.risk.ownership import where_is
from support import need
from support.checkout import CHECKOUT
from support.containers import Lab, real

ID, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4
ROOTS = Place("container", "docker", ID)
OF_1000 = Place("container", "docker", ID, user=1000)
OF_1001 = Place("container", "podman", OTHER, user=1001)
KNOWN = {OF_1000: Known("web"), ROOTS: Known("web"), OF_1001: Known("db")}


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("web", [ROOTS]),
        (ID, [ROOTS]),
        (ID[:12], [ROOTS]),
        ("1000:web", [OF_1000]),
        (f"1000:{ID}", [OF_1000]),
        ("db", [OF_1001]),
        ("1001:db", [OF_1001]),
        ("root:web", [ROOTS]),
        ("1000:db", []),
        ("nobody-there:web", []),
        ("1000:", []),
    ],
)
def test_roots_container_is_meant(wanted: str, meant: list[Place]) -> None:
    """Whatever users call theirs, and whatever ids they give them."""
    assert chosen(wanted, KNOWN) == meant


def test_an_id_is_meant_before_a_name() -> None:
    """A cgroup below another that is called like a third one does not become it."""
    web, below = Place("container", "", "web"), Place("container", "", "box/web")
    assert chosen("web", {below: Known("web"), web: Known("web")}) == [web]
    assert Place("container", "", "box").holds(below)
    assert not web.holds(below)
    assert not Place("container", "docker", ID).holds(Place("container", "docker", ID, user=1))


def test_it_is_found_without_tracing(tmp_path: Path) -> None:
    """By /proc alone: no process of the host is stopped to find one container."""
    lab = Lab(tmp_path, real("runc"))
    with lab.container() as container:
        container.ready()
        find = f"from shim.risk.containers import running; print(running({container.name!r}).pids)"
        unable = ["setpriv", "--bounding-set=-sys_ptrace,-sys_admin", "--inh-caps=-all"]
        command = [*unable, "env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-P", "-c", find]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(running(container.name).pids)
        assert running(container.name).pids


def test_an_equal_number_hides_no_container() -> None:
    """Root in a pid namespace can choose the numbers there (ns_last_pid)."""
    need.root()
    words = ["unshare", "--pid", "--fork", "--kill-child", "sleep", "600"]
    with subprocess.Popen(words) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (child := children.read_text()):
            time.sleep(0.005)
        met, us = live_filters.read_one(int(child)), live_filters.read_one(process.pid)
        os.kill(int(child), signal.SIGKILL)
    assert met
    assert us
    assert (met.nested, us.nested) == (True, False)
    assert where_is(met.pid, "0::/box\n", nested=met.nested) == Place("container", "", "box")
    assert where_is(us.pid, "0::/box\n", nested=us.nested) == PLAIN


@pytest.fixture
def of_a_user() -> Iterator[str]:
    """Have a process in a cgroup of a user's, with a pid namespace of its own; return the name."""
    need.root()
    mounts = [line.split() for line in Path("/proc/mounts").read_text().split("\n") if line]
    tops = [each[1] for each in mounts if each[2] == "cgroup2" or "name=systemd" in each[3]]
    need.kernel(bool(tops), "no hierarchy of cgroups is mounted")
    name = f"shim-test-{os.getpid()}"
    path = Path(tops[0], "user.slice/user-1000.slice/user@1000.service", name)
    made = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True)
    sleep = ["unshare", "--pid", "--fork", "--kill-child", "sleep", "600"]
    enter = f'echo $$ >{path}/cgroup.procs && exec "$@"'
    with subprocess.Popen(["sh", "-c", enter, "sh", *sleep]) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not children.read_text():
            assert process.poll() is None
            time.sleep(0.005)
        yield name
        os.kill(int(children.read_text()), signal.SIGKILL)
    for each in made:
        each.rmdir()


def test_a_users_container_is_not_taken_for_roots(
    of_a_user: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Guard wants the user's name with it, and tells which container a name means."""
    assert cli.main(["guard", "--container", of_a_user, "--", "true"]) == 2
    assert f"1000:{of_a_user} means that one" in capfd.readouterr().err
    words = ["guard", "--syscall", "test-syscall-400", "--container", f"1000:{of_a_user}"]
    assert cli.main([*words, "--", "echo", "it runs"]) == 0
    out, err = capfd.readouterr()
    assert out == "it runs\n"
    assert f"1000:{of_a_user} is a container {of_a_user} (user.slice/user-1000.slice/" in err
    with pytest.raises(ShimError, match="no such container runs here"):
        running(f"1001:{of_a_user}")
