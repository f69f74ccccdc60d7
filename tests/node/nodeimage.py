"""The image of the node's pod, built by a real engine from its Dockerfile, without a network."""

import io
import os
import re
import shutil
import subprocess
import sysconfig
import tarfile
from pathlib import Path

from node.manifests import KUBERNETES
from support import need
from support.engines import Engine

BASE = "shim-base"
NAME = "seccomp-shim-node:0.1.0"
_PYTHON = os.path.realpath("/usr/bin/python3")
_LEFT_OUT = ("__pycache__", "ensurepip", "idlelib", "lib2to3", "test", "tkinter", "dist-packages")
_PATH = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base() -> bytes:
    """Return a root file system with this host's Python and chroot, as a tar archive."""
    data = io.BytesIO()
    programs = [_PYTHON, need.program("chroot")]
    library = sysconfig.get_path("stdlib", vars={"base": "/usr", "installed_base": "/usr"})
    modules = sorted(map(str, Path(library, "lib-dynload").glob("*.so")))
    with tarfile.open(fileobj=data, mode="w", dereference=True) as tar:
        for folder in ("tmp", "etc", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for file in dict.fromkeys([*programs, *_libraries([*programs, *modules])]):
            tar.add(file)
        tar.add(_PYTHON, "usr/bin/python3")
        tar.add(library, filter=_wanted)
    return data.getvalue()


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if os.path.basename(entry.name) in _LEFT_OUT else entry


def _libraries(files: list[str]) -> list[str]:
    """Return the shared libraries that programs and modules load, the loader among them."""
    done = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False)
    return re.findall(r"(/\S+) \(0x", done.stdout)


def wheels(folder: Path) -> Path:
    """Download the wheels for the nodes' Python, which is this host's."""
    version = ".".join(sysconfig.get_python_version().split(".")[:2])
    command = [str(KUBERNETES / "build"), "--download", str(folder)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONS": version})
    return folder


def build(engine: Engine, wheels: Path, *options: str) -> None:
    """Build it by the build script with the engine's client, on a base of this host's files."""
    engine("import", "--change", _PATH, "-", BASE, data=base())
    client = engine.command("build", "--network", "none", "--build-arg", f"BASE={BASE}", *options)
    command = [str(KUBERNETES / "build"), "--wheels", str(wheels), *client, "--tag", NAME]
    scratch = engine.folder / "context"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    shutil.rmtree(scratch)
    assert done.returncode == 0, done.stdout + done.stderr
