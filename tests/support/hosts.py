"""Hosts to be managed over ssh: a real sshd each, on an address and a root file system of its own.

::

    with hosts.fleet(tmp_path, ["web1", "web2", "full", "locked"], small=["full"]) as fleet:
        fleet.inventory(tmp_path / "hosts.yml", missing=["gone"])   # for ansible -i
        fleet.ssh("web1", "sudo -n id -u")                          # as the user ``ops``
        web1 = fleet["web1"]
        web1.write("/etc/docker/seccomp.json", "{}")    # from outside; read() and exists() too
        web1.run("id -u")                               # inside, as root
        web1.states(uretprobe="filtered")               # what its kernel is said to do
        fleet["full"].fill()                            # its disk (small=) has no byte left
        fleet["locked"].forbid_sudo()                   # sudo asks for a password from now on
        web1.die_when("var/lib/seccomp-shim/runs/*")    # as by a power failure, as soon as such
        web1.start(), web1.wait()                       # a path is there; and boots again
        fleet["web2"].die_at_sudo(2)                    # as somebody calls sudo a second time
        fleet["web2"].kill()                            # at once

Of a host of its own are: processes, host name, /run, /proc, and the disk, which is this machine's
as a lower layer without what ``support.layers`` hides: what a test writes survives the host's
death, not the ``with``. The network is this machine's (loopback) and so is the kernel. A host takes
a tenth of a second to start. Nothing is left behind, also if pytest is killed.
"""

import contextlib
import glob
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shim.catalog import kernel_injected
from support import host, layers, need
from support.layers import USER

_PORT = 2222
_SECONDS = 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_KEEP = """
set -eu
mount -t tmpfs -o mode=755 none "$1"
echo ready
exec sleep infinity
"""
_BOOT = """
set -eu
cd "$1"
mount -t overlay overlay -o lowerdir=../base:/,upperdir=disk/upper,workdir=disk/work root
cd root
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o mode=755 none run
mkdir -p run/sshd run/lock .outside
hostname "$2"
pivot_root . .outside
umount -l .outside
rmdir .outside
exec /usr/sbin/sshd -D
"""
_SSHD = """\
ListenAddress {address}
Port {port}
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PasswordAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxSessions 1000
MaxStartups 1000
Subsystem sftp internal-sftp
"""
_DEADLY_SUDO = """\
#!/bin/sh
echo >>/tmp/sudo-calls
[ "$(wc -l </tmp/sudo-calls)" -lt {count} ] || sudo.real -n kill -TERM 1
exec sudo.real "$@"
"""


class ManagedHost(host.Host):
    """One host; ``layer`` is what it has written to its disk."""

    def __init__(self, name: str, address: str, folder: Path, enter: Sequence[str]) -> None:
        self.name = name
        self.address = address
        self.layer = folder / "disk/upper"
        self.small = False
        self._folder = folder
        self._command = [*enter, "unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child"]
        self._states: Mapping[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def start(self) -> None:
        """Boot it, or boot it again with the disk that it has; ``wait`` for it then."""
        inside = str(self._folder).partition("/root/")[2]
        command = [*self._command, "sh", "-c", _BOOT, "sh", f"/{inside}", self.name]
        with (self._folder / "boot.log").open("wb") as said:
            self._process = subprocess.Popen(command, stdout=said, stderr=said)

    def wait(self) -> None:
        """Wait until its sshd answers."""
        deadline = time.monotonic() + _SECONDS
        assert self._process is not None
        while not _answers(self.address):
            said = (self._folder / "boot.log").read_text()
            assert self._process.poll() is None, f"{self.name} does not boot: {said}"
            assert time.monotonic() < deadline, f"{self.name}: its sshd does not answer"
            time.sleep(0.02)
        # nsenter, unshare, and the first process inside
        self._pid = _only_child(_only_child(self._process.pid))
        super().__init__(self._pid, pids=True)
        self.states(**self._states)

    def kill(self) -> None:
        """End all its processes at once, as a power failure does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(_SECONDS)

    def path(self, absolute: str) -> Path:
        """Return the place of a path of the host as it is seen from outside; no links are followed.

        The host must be alive: of a dead one only ``layer`` is left.
        """
        return Path(f"/proc/{self._pid}/root{absolute}")

    def write(self, absolute: str, text: str | bytes, mode: int = 0o644) -> None:
        """Write a file of root's, with the directories that it needs."""
        place = self.path(absolute)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode() if isinstance(text, str) else text)
        place.chmod(mode)

    def read(self, absolute: str) -> bytes:
        """Read a file."""
        return self.path(absolute).read_bytes()

    def exists(self, absolute: str) -> bool:
        """Tell whether a path is there."""
        return os.path.lexists(self.path(absolute))

    def states(self, **states: str) -> None:
        """Have the host remember these states of the kernel-injected calls as found in this boot.

        What is not named is absent. Survives a reboot; none at all: it looks for itself.
        """
        self._states = states
        if not states:
            return
        calls = kernel_injected().items()
        uname = os.uname()
        boot = _BOOT_ID.read_text().strip()
        found = {
            "kernel": {"release": uname.release, "machine": uname.machine, "boot_id": boot},
            "syscalls": {
                name: {"nr": call.numbers["x86_64"], "state": states.get(name, "absent")}
                for name, call in calls
            },
            "prober": {"filtered": False},
        }
        self.write("/run/seccomp-shim/probe.json", json.dumps(found))

    def fill(self) -> None:
        """Leave no byte on the disk; only for a host with a small one."""
        assert self.small, f"{self.name}: not small"
        with contextlib.suppress(OSError), (self.layer / "filler").open("ab", 0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"\0" * size)

    def forbid_sudo(self) -> None:
        """Have sudo ask for a password, which nobody has."""
        self.path(f"/etc/sudoers.d/{USER}").unlink()

    def die_at_sudo(self, count: int) -> None:
        """Have it die as sudo is called for the ``count``-th time from now on."""
        self.run("cp -p /usr/bin/sudo /usr/bin/sudo.real; rm /usr/bin/sudo; rm -f /tmp/sudo-calls")
        self.write("/usr/bin/sudo", _DEADLY_SUDO.format(count=count), 0o755)

    def die_when(self, pattern: str) -> threading.Thread:
        """Have it die as soon as a path on its disk (from the root, no leading /) is written.

        Looks a thousand times a second, for a minute: what the host does next must take longer.
        """

        def watch() -> None:
            deadline = time.monotonic() + 60
            while not glob.glob(pattern, root_dir=self.layer) and time.monotonic() < deadline:
                time.sleep(0.001)
            self.kill()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        return thread


class Fleet(dict[str, ManagedHost]):
    """The hosts by name, and what is needed to log in to them."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__()
        self.folder = folder
        self.port = port
        self.key = folder / "key"
        self.known_hosts = folder / "known_hosts"

    @property
    def ssh_options(self) -> list[str]:
        """Options for ssh(1): believe these hosts and look at no settings of the user's."""
        return ["-F", "none", "-o", f"UserKnownHostsFile={self.known_hosts}"]

    def ssh(self, name: str, command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command on a host, as the user ``ops``."""
        login = ["-i", str(self.key), "-p", str(self.port), f"{USER}@{self[name].address}"]
        words = ["ssh", *self.ssh_options, "-o", "BatchMode=yes", *login, command]
        return subprocess.run(words, text=True, capture_output=True, check=False, timeout=_SECONDS)

    def variables(self, address: str) -> dict[str, Any]:
        """Return what an inventory says of the host at ``address``."""
        return {
            "ansible_host": address,
            "ansible_port": self.port,
            "ansible_user": USER,
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": " ".join(self.ssh_options),
        }

    def inventory(
        self, path: Path, *, missing: Sequence[str] = (), names: Sequence[str] | None = None
    ) -> Path:
        """Write an Ansible inventory of all hosts to ``path`` and give it back.

        ``missing``: names of hosts that are there, too, where nobody answers. ``names``: these
        instead of the hosts' own, shared out among them in turn.
        """
        addresses = [each.address for each in self.values()]
        listed = {
            name: self.variables(addresses[number % len(addresses)])
            for number, name in enumerate(self if names is None else names)
        }
        for number, name in enumerate(missing):
            listed[name] = self.variables(f"127.255.254.{number + 1}")
        path.write_text(json.dumps({"all": {"hosts": listed}}, indent=1))
        return path


@contextlib.contextmanager
def fleet(scratch: Path, names: Sequence[str], *, small: Sequence[str] = ()) -> Iterator[Fleet]:
    """Start a host for each name; those in ``small``, too, have a disk of 24 MB.

    ``scratch`` is a directory for this fleet alone.
    """
    need.root()
    need.program("sshd")
    need.program("sudo")
    need.kernel("\toverlay\n" in Path("/proc/filesystems").read_text(), "no overlay file system")
    scratch.mkdir(parents=True, exist_ok=True)
    disks = scratch / "disks"
    disks.mkdir()
    command = ["setpriv", "--pdeathsig", "KILL", *_NAMESPACES, "sh", "-c", _KEEP, "sh", str(disks)]
    with (scratch / "keeper.log").open("wb") as said:
        keeper = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
    assert keeper.stdout is not None
    started = Fleet(scratch, _PORT)
    try:
        assert keeper.stdout.readline() == "ready\n"
        inner = _only_child(keeper.pid)
        enter = ["nsenter", "--mount", "--pid", "--target", str(inner)]
        place = Path(f"/proc/{inner}/root{disks}")
        _make_keys(started)
        layers.make_base(place / "base", scratch, names)
        network = _free_network(len(names))
        keys = []
        for number, name in enumerate(names):
            address = f"{network}.{number + 1}"
            folder = place / name
            (folder / "root").mkdir(parents=True)
            (folder / "disk").mkdir()
            if name in small:
                inside = f"{disks}/{name}/disk"
                mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "none", inside]
                subprocess.run([*enter, *mount], check=True)
            for each in ("upper", "work"):
                (folder / "disk" / each).mkdir()
            _write_sshd(folder / "disk/upper", address)
            started[name] = ManagedHost(name, address, folder, enter)
            started[name].small = name in small
            keys.append(f"[{address}]:{_PORT} {(scratch / 'host_key.pub').read_text()}")
        started.known_hosts.write_text("".join(keys))
        for one in started.values():
            one.start()
        for one in started.values():
            one.wait()
        yield started
    finally:
        keeper.terminate()
        with contextlib.suppress(ProcessLookupError):
            os.kill(_only_child(keeper.pid), signal.SIGKILL)
        keeper.wait()
        keeper.stdout.close()
        for one in started.values():
            one.kill()


_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


def _make_keys(started: Fleet) -> None:
    for name in ("key", "host_key"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name]
        subprocess.run([*make, "-f", str(started.folder / name)], check=True)


def _write_sshd(layer: Path, address: str) -> None:
    folder = layer / "etc/ssh"
    folder.mkdir(parents=True)
    (folder / "sshd_config").write_text(_SSHD.format(address=address, port=_PORT))


def _free_network(count: int) -> str:
    """Return a network of 127/8 in which nobody listens: other tests have fleets, too."""
    while True:
        network = f"127.{os.urandom(1)[0] % 200 + 10}.{os.urandom(1)[0] % 250 + 1}"
        if not any(_answers(f"{network}.{number + 1}") for number in range(count)):
            return network


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, _PORT), timeout=_SECONDS) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
