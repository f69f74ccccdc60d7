"""What the tests of a registration with Docker are given."""

from collections.abc import Iterator

import pytest

from engines.verbs import LOG, TEST_SYSCALL, prepare
from support import engines
from support.host import Host, throwaway


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Return a view of this host with us installed and no dockerd running in it."""
    with throwaway(tmp_path_factory.mktemp("view")) as host:
        prepare(host)
        yield host


@pytest.fixture
def host(view: Host) -> Host:
    """Return that view as before any other test: nothing configured, no record, no log."""
    view.run(f"chattr -i /etc/docker 2>/dev/null; rm -rf /etc/docker /var/lib/seccomp-shim {LOG}")
    view.run("rm -rf /etc/systemd/system/docker.service* /etc/default/docker")
    return view


@pytest.fixture
def docker() -> Iterator[engines.Docker]:
    """Return a running dockerd without daemon.json, us beside it, a test syscall set."""
    with engines.dockerd() as daemon:
        prepare(daemon.host, f"test_syscall: {TEST_SYSCALL}")
        yield daemon
