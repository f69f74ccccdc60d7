"""Boot one kernel under QEMU's own emulation, never KVM, and wait for what it has to say."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vm.errors import LabError

MEMORY_MB = 4096
_COMMAND_LINE = "console=ttyS0 panic=-1 mitigations=off quiet loglevel=4"


@dataclass(frozen=True)
class Boot:
    """What is booted: image, initramfs, and the directory that the guest sees as /run/lab."""

    bzimage: Path
    initramfs: Path
    lab: Path
    cpus: int


def command(boot: Boot) -> list[str]:
    """Return QEMU's command line; the guest cannot write to the host's root."""
    if shutil.which("qemu-system-x86_64") is None:
        raise LabError("QEMU is not installed: apt-get install qemu-system-x86")
    share = "security_model=none,multidevs=remap"
    return [
        "qemu-system-x86_64",
        *("-accel", "tcg,thread=multi,tb-size=512"),
        # Nothing newer: what a processor can do beyond it, libraries would use, and emulating that
        # takes longer (the same four cells: 115 s, and 132 with all that QEMU can, "max").
        *("-cpu", "qemu64"),
        *("-m", str(MEMORY_MB), "-smp", str(boot.cpus)),
        *("-nodefaults", "-nographic", "-no-reboot"),
        *("-kernel", str(boot.bzimage), "-initrd", str(boot.initramfs), "-append", _COMMAND_LINE),
        *("-virtfs", f"local,path=/,mount_tag=host,readonly=on,{share}"),
        *("-virtfs", f"local,path={boot.lab},mount_tag=lab,{share}"),
    ]


def run(boot: Boot, console: Path, seconds: int) -> str:
    """Run the guest until it powers off; give "" or, in one line, why it did not end by itself.

    What it prints is kept in ``console`` whatever happens.
    """
    with console.open("wb") as log:
        process = subprocess.Popen(
            [*command(boot), "-serial", "stdio"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"the guest did not end within {seconds} seconds; its console: {console}"
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        return f"QEMU ended with {process.returncode}; the console: {console}"
    return ""


def interactive(boot: Boot) -> int:
    """Run the guest on this terminal; Ctrl-A X ends it, Ctrl-C is the guest's."""
    return subprocess.run([*command(boot), "-serial", "mon:stdio"], check=False).returncode
