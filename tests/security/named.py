"""What becomes of a call by its real name, told by the filters of live processes.

Run as a program, in the user land whose runtimes are to be tried, where the kernel counts as one
that lets a filter deny the calls: ``named.py FOLDER``. It needs no more than our own code, and
prints JSON: by runtime, way and profile the verdicts in the container and in what joins it.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

WAYS = ("plain", "createRuntime", "wrapper")
PROFILES: dict[str, list[dict[str, Any]]] = {
    "silent": [],
    "killed": [{"names": ["uretprobe"], "action": "SCMP_ACT_KILL_PROCESS"}],
}


def verdicts(pid: int) -> dict[str, str]:
    """Return what all filters of a live process make of the calls."""
    from shim.bpf import program as bpf
    from shim.bpf.outcomes import names, together
    from shim.catalog import kernel_injected
    from shim.host.ptrace import installed_filters

    while True:
        try:
            programs = [bpf.decode(program) for program in installed_filters(pid)]
            break
        except PermissionError:
            time.sleep(0.01)  # our own look after the start is at it
    calls = kernel_injected().items()
    return {name: names(together(programs, call.numbers["x86_64"])) for name, call in calls}


def begun(pid_file: Path) -> int:
    """Wait until the program runs, some time after its pid is known, and nobody traces it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pid = int(pid_file.read_text() or 0) if pid_file.exists() else 0
        if pid and "python" in Path(f"/proc/{pid}/cmdline").read_text():
            status = Path(f"/proc/{pid}/status").read_text()
            if "TracerPid:\t0\n" in status and "Seccomp:\t2\n" in status:
                return pid
        time.sleep(0.005)
    raise TimeoutError(pid_file)


def tried(lab: Any, way: str, rules: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Start a container in one of the ways, and ``exec`` in it through the wrapper."""
    from shim.engines import oci
    from support.containers import profile

    body = profile()
    body["syscalls"] = [*rules, *body["syscalls"]]
    name = f"shim-named-{uuid.uuid4().hex[:8]}"
    folder = lab.folder / name
    folder.mkdir()
    hooks = lab.hooks(stage=way, test_syscall=0) if way == "createRuntime" else {}
    oci.bundle(folder, body, oci.caller([]), hooks=hooks)
    runtime = lab.runtime if way == "wrapper" else lab.real
    with oci.started(runtime, folder, name) as process:
        found = [verdicts(oci.wait_ready(process, folder))]
        joined = folder / "joined"
        words = ["exec", "--detach", "--pid-file", str(joined), name, *oci.caller([])]
        reader, writer = os.pipe()
        subprocess.run(
            oci.command(lab.runtime, *words), stdin=reader, stdout=2, check=True, timeout=60
        )
        found.append(verdicts(begun(joined)))
        for fd in (reader, writer):  # its program ends with its input
            os.close(fd)
    return found


def main(folder: Path, ways: list[str]) -> dict[str, Any]:
    """Try everything."""
    from support.wrapped import WrappedLab

    results: dict[str, Any] = {}
    for runtime in filter(None, map(shutil.which, ("runc", "crun"))):
        where = folder / Path(runtime).name
        where.mkdir()
        lab = WrappedLab(where, runtime, test_syscall=0)
        for way in ways:
            for told, rules in PROFILES.items():
                results[f"{Path(runtime).name}: {way}: {told}"] = tried(lab, way, rules)
    return results


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
    with contextlib.redirect_stdout(sys.stderr):
        done = main(Path(sys.argv[1]), sys.argv[2:])
    print(json.dumps(done))
