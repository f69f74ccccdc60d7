"""Installation and tests on a bare Debian 12, which has python3 and pip and little else."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support import need
from support.checkout import CHECKOUT

# What names the package mirrors of this machine; a bare machine has its own.
_FROM_HOST = ("/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")

# The package manager's own records, which an installation does not own.
_NOT_OURS = r"^/(proc|sys|dev|run|tmp|root|var/(cache|log|lib/(apt|dpkg))/)"

_ENTER = """
set -eu
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs none run
exec chroot . sh -euc "$2"
"""
_STEPS = f"""
cd /root/checkout
files() {{ find / -xdev ! -type d | grep -Ev '{_NOT_OURS}' | sort; dpkg-query -W | sort; }}
files >/tmp/before
sudo ./install.sh
echo === again
sudo ./install.sh --no-demo
echo === removed
sudo ./install.sh --uninstall --purge
files >/tmp/after
diff /tmp/before /tmp/after
echo === tests
./tests/run -q tests/catalog
"""


@pytest.mark.slow
def test_readme_commands_do_all_the_set_up(tmp_path: Path) -> None:
    """Installation with demo, a second one, removal without a trace, and the tests all work."""
    need.root()
    need.program("mmdebstrap")
    root = tmp_path / "bare"
    make = ["mmdebstrap", "--quiet", "--variant=minbase"]
    make += ["--include=python3,python3-pip,sudo,ca-certificates", "bookworm", str(root)]
    # In namespaces of its own: killed, it leaves no process, and no mount of /dev/shm through
    # which pytest would delete the machine's.
    subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", *make], check=True)
    for file in _FROM_HOST:
        if Path(file).exists():
            shutil.copyfile(file, f"{root}{file}")
    ignored = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__")
    shutil.copytree(CHECKOUT, root / "root" / "checkout", ignore=ignored)
    pip = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _ENTER, "sh", str(root), _STEPS],
        env={"HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **pip},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    install, rest = result.stdout.split("=== again\n")
    again, rest = rest.split("=== removed\n")
    removed, tests = rest.split("=== tests\n")
    assert "Installing system packages" in install
    assert "up to date" in again
    assert removed.endswith("seccomp-shim is removed.\n")
    assert " passed" in tests
