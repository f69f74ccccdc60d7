"""The hook as a process of its own, against a bare interpreter and Debian's eBPF hook."""

import json
import os
import sys
from pathlib import Path

import shim
from bench.starts import registered
from bench.timing import Case, interleaved
from support.containers import Lab

DEBIANS = "/usr/libexec/oci/hooks.d/oci-seccomp-bpf-hook"
PYTHON = os.path.realpath(sys.executable)
BARE = "python3 -I -S -c pass"
HOOK = "seccomp-shim-hook, nothing to do"

# What a start that needs nothing imports, and what one that is adjusted does in addition
# (tests/start/test_imports.py holds the start path to such a list).
_NOOP = "shim.start.hooks.prestart, shim.host.cache"
_INJECTION = "shim.start.spec, shim.start.inject.follow, shim.host.ptrace, select, _signal"


def measure(lab: Lab, rounds: int) -> list[dict[str, object]]:
    """Time the processes; the first row is the bare interpreter, the base of all ratios."""
    given = state(lab.folder)
    path = f"import sys; sys.path.insert(0, {str(Path(shim.__file__).parents[1])!r})"
    bare = [PYTHON, "-I", "-S", "-c"]
    hook = registered(lab, 0)["prestart"][0]["args"]
    cases = [
        Case(BARE, [*bare, "pass"]),
        Case("... and the imports of no-op", [*bare, f"{path}; import {_NOOP}"]),
        Case("... and those of injection", [*bare, f"{path}; import {_NOOP}, {_INJECTION}"]),
        Case(HOOK, hook, given),
    ]
    if os.path.exists(DEBIANS):
        # Without the annotation it has nothing to trace: it says so and ends with 1.
        cases += [
            Case("oci-seccomp-bpf-hook -s, no annotation", [DEBIANS, "-s"], given, 1),
            Case("oci-seccomp-bpf-hook -version", [DEBIANS, "-version"]),
        ]
    timed = interleaved(cases, rounds, lab.folder)
    return [one.row(timed[0]) for one in timed]


def state(folder: Path) -> str:
    """Write the state of a container, as a runtime gives it to a hook; return its path."""
    path = folder / "state.json"
    document = {
        "ociVersion": "1.0.2",
        "id": "bench",
        "status": "creating",
        "pid": os.getpid(),
        "bundle": str(folder),
    }
    path.write_text(json.dumps(document))
    return str(path)
