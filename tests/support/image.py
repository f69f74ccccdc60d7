"""The image that the tests' engines run: busybox, and a program that makes the calls it is told."""

import io
import os
import pty
import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from support import need

NAME = "shim-test"
CALLER = "/caller"
_SOURCE = Path(__file__).parent / "caller.c"
_APPLETS = ("cat", "echo", "env", "false", "id", "kill", "sh", "sleep", "stty", "test", "true")


def rootfs(folder: Path) -> Path:
    """Fill ``directory`` with the image's files and give it back."""
    (folder / "bin").mkdir(parents=True)
    for name in ("dev", "etc", "proc", "sys", "tmp"):
        (folder / name).mkdir()
    (folder / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    shutil.copy(need.program("busybox"), folder / "bin/busybox")  # busybox-static
    for applet in _APPLETS:
        (folder / "bin" / applet).symlink_to("busybox")
    compiler = need.program("gcc")
    subprocess.run(
        [compiler, "-static", "-O2", "-o", f"{folder}{CALLER}", str(_SOURCE)], check=True
    )
    return folder


def archive(root: Path) -> bytes:
    """Return the files of ``root`` as a tar archive, as ``docker import`` wants them."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(root, arcname=".")
    return data.getvalue()


def outcomes(text: str) -> dict[int, int]:
    """Return the last errno of each call in what ``caller`` printed, among whatever else."""
    return {int(nr): int(code) for nr, code in re.findall(r"^(\d+) (\d+)\r*$", text, re.MULTILINE)}


def at_terminal(command: Sequence[str]) -> tuple[int, str]:
    """Run ``command`` with a terminal of its own; give its exit status and what appeared there."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        seen = b""
        while data := _read(ours):
            seen += data
        os.close(ours)
    return process.returncode, seen.decode()


def _read(terminal: int) -> bytes:
    """Return what is there; nothing once nobody has the other side open, which Linux calls EIO."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
