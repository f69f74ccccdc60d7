"""install.sh --with metrics: what writes the metrics for node_exporter, and that it goes."""

import shutil

from prometheus_client.parser import text_string_to_metric_families

from support.checkout import CHECKOUT
from support.host import Host

INSTALL = f"{CHECKOUT}/install.sh"
UNITS = "/etc/systemd/system/seccomp-shim-metrics"
FILE = "/var/lib/prometheus/node-exporter/seccomp-shim.prom"


def test_what_the_timer_runs_writes_the_metrics(installed: Host) -> None:
    """The service's own command, in the view of a host; systemd finds no fault with the units."""
    installed.run(f"mkdir -p /etc/systemd/system; {INSTALL} --no-demo --with metrics")
    command = installed.run(f"sed -n 's/^ExecStart=//p' {UNITS}.service").stdout
    installed.run(command)
    text = installed.run(f"cat {FILE}").stdout
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"seccomp_shim_adjustments", "seccomp_shim_containers_at_risk"} <= names
    if shutil.which("systemd-analyze"):
        installed.run(f"systemd-analyze verify --man=no {UNITS}.service {UNITS}.timer")
    installed.run(f"{INSTALL} --no-demo; test -e {UNITS}.timer")
    said = installed.run(
        f"echo 'with metrics,metrics' >>/opt/seccomp-shim/manifest; {INSTALL} --no-demo"
    )
    assert "is up to date" in said.stdout
    installed.run(f"{INSTALL} --uninstall")
    installed.run(f"! ls {UNITS}.service {UNITS}.timer {FILE} /var/lib/prometheus 2>/dev/null")


def test_a_link_in_the_place_of_its_directory_is_not_followed(installed: Host) -> None:
    """Who runs Prometheus may have made one: nothing is removed where it leads."""
    place = FILE.rpartition("/")[0]
    installed.run(f"mkdir -p /etc/systemd/system; {INSTALL} --no-demo --with metrics")
    installed.run(f"rmdir {place}; mkdir /etc/theirs; ln -s /etc/theirs {place}")
    installed.run("touch /etc/theirs/seccomp-shim.prom")
    installed.run(f"{INSTALL} --uninstall; test -e /etc/theirs/seccomp-shim.prom")


def test_without_it_there_is_no_timer(installed: Host) -> None:
    """Nobody who did not ask for it has a timer."""
    installed.run(f"mkdir -p /etc/systemd/system; {INSTALL} --no-demo; test ! -e {UNITS}.timer")
