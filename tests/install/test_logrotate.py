"""What install.sh gives logrotate: a file that it takes, and that goes when we go."""

from shim import config
from support import need
from support.checkout import CHECKOUT
from support.host import Host

INSTALL = f"{CHECKOUT}/install.sh"
SNIPPET = "/etc/logrotate.d/seccomp-shim"
LOG = "/var/log/seccomp-shim/audit.jsonl"


def _again(host: Host) -> None:
    """Install once more, on a host that has logrotate."""
    host.run(f"mkdir -p /etc/logrotate.d; rm -f {SNIPPET}; {INSTALL} --no-demo")


def test_logrotate_rotates_the_log(installed: Host) -> None:
    """The real one: our mode and group, our numbers, and a log that is there at once."""
    logrotate = need.program("logrotate")
    _again(installed)
    installed.run(f"yes '{{}}' | head -c 90000000 >{LOG}; chmod 640 {LOG}; chgrp adm {LOG}")
    installed.run(f"{logrotate} --state /tmp/logrotate.state {SNIPPET}")
    assert installed.run(f"stat -c '%a %U %G %s' {LOG}").stdout == "640 root adm 0\n"
    installed.run(f"yes '{{}}' | head -c 90000000 >{LOG}")
    installed.run(f"{logrotate} --state /tmp/logrotate.state {SNIPPET}")
    names = installed.run("ls /var/log/seccomp-shim").stdout.split()
    assert [name for name in names if name.startswith("audit.jsonl")] == [
        "audit.jsonl", "audit.jsonl.1", "audit.jsonl.2.gz"
    ]  # fmt: skip


def test_what_we_rotate_ourselves_is_left_to_us(installed: Host) -> None:
    """Both at once could give two logs one number: logrotate comes in where we have not."""
    logrotate = need.program("logrotate")
    _again(installed)
    ours, _ = config.DEFAULTS["log_max"]
    installed.run(f"truncate -s {ours + (4 << 20)} {LOG}; chmod 640 {LOG}; chgrp adm {LOG}")
    installed.run(f"{logrotate} --state /tmp/logrotate.state {SNIPPET}")
    installed.run(f"test ! -e {LOG}.1 && test -s {LOG}")


def test_it_goes_with_the_installation(installed: Host) -> None:
    """Also where only what was kept is removed."""
    _again(installed)
    installed.run(f"test -e {SNIPPET} && {INSTALL} --uninstall && test ! -e {SNIPPET}")


def test_an_edited_one_stays_until_it_is_purged(installed: Host) -> None:
    """It is the admin's by then: an upgrade leaves it, too."""
    _again(installed)
    installed.run(f"echo '# mine' >>{SNIPPET}; {INSTALL} --no-demo; grep -q mine {SNIPPET}")
    assert f"Kept: {SNIPPET}" in installed.run(f"{INSTALL} --uninstall").stdout
    installed.run(f"{INSTALL} --uninstall --purge; test ! -e {SNIPPET}")


def test_without_logrotate_nothing_is_put_there(installed: Host) -> None:
    """A host has no directory of ours that only another program would read."""
    installed.run(f"rm -rf /etc/logrotate.d; {INSTALL} --no-demo; test ! -e /etc/logrotate.d")
