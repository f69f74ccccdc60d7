"""A runtime whose init loads as many filters as its bundle says, in the way that each one says.

Run as a program: ``loader.py run --bundle DIR ID``, which calls the hooks of the bundle's
config.json as runc and crun do. DIR/filters.json lists pairs of a way (seccomp, prctl, tsync) and
a program in hexadecimal, or ``pause`` and seconds.
"""

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_TSYNC = 1


def load(way: str, program: bytes) -> None:
    """Load one filter."""
    from shim import abi
    from shim.host import libc

    if way == "prctl":
        fprog, _code = libc.sock_fprog(program)
        address = ctypes.addressof(fprog)
        libc.prctl(abi.PR_SET_SECCOMP, abi.SECCOMP_MODE_FILTER, address)
    else:
        libc.set_filter(program, _TSYNC if way == "tsync" else 0)


def init(go: int, bundle: Path, args: list[str]) -> None:
    """Wait for the word, load the filters, become the program."""
    filters = json.loads((bundle / "filters.json").read_text())
    os.read(go, 1)
    for way, program in filters:
        if way == "pause":
            time.sleep(program)
        else:
            load(way, bytes.fromhex(program))
    os.execv(args[0], args)  # noqa: S606 - no shell is wanted


def call(hooks: list[dict[str, Any]], state: dict[str, Any]) -> None:
    """Call the hooks of one stage; CalledProcessError: one of them refuses the start."""
    for hook in hooks:
        command = [hook["path"], *hook.get("args", [""])[1:]]
        subprocess.run(command, input=json.dumps(state), text=True, check=True, env={})


def run(bundle: Path, ident: str) -> int:
    """Start the container and give its exit status."""
    config = json.loads((bundle / "config.json").read_text())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        init(reader, bundle, config["process"]["args"])
    state = {"ociVersion": "1.0.2", "id": ident, "pid": child, "bundle": str(bundle)}
    hooks = config.get("hooks", {})
    for stage in ("prestart", "createRuntime"):
        call(hooks.get(stage, []), state)
    os.write(writer, b"g")
    call(hooks.get("poststart", []), state)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> int:
    """Run a container; anything else is answered with nothing."""
    words = sys.argv[1:]
    if "run" not in words:
        return 1
    return run(Path(words[words.index("--bundle") + 1]), words[-1])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sys.exit(main())
