"""What every container start imports: the standard library, and as little of it as possible."""

import json
import os
import subprocess
import sys
from pathlib import Path

import shim
from shim import configfile
from shim.engines import oci
from shim.host.cache import facts
from support.containers import profile
from support.wrapped import script

ROOT = str(Path(shim.__file__).parent.parent)
BARE = [os.path.realpath(sys.executable), "-I", "-S"]

# For a kernel that needs nothing; os would add a fifth to the interpreter's start, and json, re,
# typing, dataclasses, ctypes would double it.
NOTHING_TO_DO = {"_stat", "time", "_json", "fcntl", "gc", "errno"}
# Of our own: what is not here (files written, YAML compiled, the catalogue) costs no such start.
OURS = {
    "shim", "shim.config", "shim.errors", "shim.files", "shim.host", "shim.host.cache",
    "shim.injected", "shim.lightos", "shim.log", "shim.start", "shim.start.hooks",
    "shim.start.hooks.prestart", "shim.start.session", "shim.startjson",
}  # fmt: skip
# For a container that is adjusted: in addition.
INJECTION = {
    "_ctypes", "_struct", "select", "math", "_signal", "_sha256", "_sha2",
}  # fmt: skip


def imported(code: str) -> set[str]:
    """Return what a fresh interpreter of the start path has loaded after ``code``."""
    program = f"""
import sys
before = set(sys.modules)
sys.path.insert(0, {ROOT!r})
{code}
print("[" + ", ".join('"%s"' % name for name in sorted(set(sys.modules) - before)) + "]")
"""
    done = subprocess.run(
        [*BARE, "-c", program], input="{}", capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def outside(names: set[str]) -> set[str]:
    """Leave out our own modules."""
    return {name for name in names if name.split(".")[0] != "shim"}


def test_a_start_that_needs_nothing(tmp_path: Path) -> None:
    """The whole no-op path, from the state on standard input to the line in the log."""
    settings = tmp_path / "config.yaml"
    settings.write_text(f"log: {tmp_path}/audit.jsonl\n")
    settings.chmod(0o644)
    configfile.compile_file(str(settings))
    facts()
    state = json.dumps({"id": "x", "pid": 2, "bundle": "/nowhere"})
    code = f"""
import posix
r, w = posix.pipe()
posix.write(w, {state.encode()!r})
posix.close(w)
posix.dup2(r, 0)
from shim.start.hooks.prestart import main
main(["hook", "--config", {str(settings)!r}])
"""
    names = imported(code)
    assert outside(names) <= NOTHING_TO_DO
    kernel = facts()["syscalls"]["uretprobe"]["state"]
    if kernel != "filtered":
        assert names - outside(names) == OURS
        assert "left-alone" in (tmp_path / "audit.jsonl").read_text()


def test_a_start_that_is_adjusted() -> None:
    """Everything that the tracer uses besides."""
    names = imported(
        "import shim.start.hooks.prestart, shim.start.spec, shim.start.inject.follow\n"
        "import select, _signal\n"
        "from shim.start.digest import sha256; sha256(b'')\n"
    )
    assert outside(names) <= NOTHING_TO_DO | INJECTION


def test_a_start_through_the_wrapper(tmp_path: Path) -> None:
    """Create by each mechanism: reading, deciding, writing config.json; a kept program is at hand.

    ``about`` asks the runtime itself, once: ``select`` comes from there.
    """
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    settings = tmp_path / "config.yaml"
    settings.write_text(f"log: {tmp_path}/audit.jsonl\n")
    settings.chmod(0o644)
    configfile.compile_file(str(settings))
    runtime = script(tmp_path / "crun", "echo 'crun version 1.8.1'; echo 'libseccomp: 2.5.4'")
    oci.bundle(bundle, profile(), ["/bin/true"])
    command = ["create", "-b", str(bundle), "c"]
    arguments = [str(tmp_path), runtime, str(settings), "400", "0", *command]
    code = f"""
import shim.start.wrapper.rawbpf
def program(*_):
    return b"program", True
shim.start.wrapper.rawbpf.program = program
from shim.start.wrapper.main import main
assert main({arguments!r}, False) == 0
"""
    names = imported(code)
    assert "run.oci.seccomp_bpf_data" in (bundle / "config.json").read_text()
    more = {"select", "_signal", "_sha256", "_sha2", "_struct", "binascii"}
    assert outside(names) <= NOTHING_TO_DO | more
    assert {
        "shim.start.enosys_calls",
        "shim.profile.unlisted_calls",
        "shim.catalog.native",
    }.isdisjoint(names)


def test_an_exec_whose_program_is_long_enough() -> None:
    """Where crun's kept program lets the calls through already, no profile is read, or known."""
    names = imported(
        "import shim.start.wrapper.exec, shim.start.wrapper.container_state\n"
        "import shim.start.wrapper.exec_runtime, shim.start.inject.augment\n"
    )
    assert {"shim.start.spec", "shim.profile.evaluate"}.isdisjoint(names)


def test_an_exec_that_is_followed() -> None:
    """What a process that joins a container waits for, and what its tracer uses besides."""
    names = imported(
        "import shim.start.wrapper.exec, shim.start.wrapper.container_state, shim.start.spec\n"
        "import shim.start.wrapper.exec_runtime\n"
        "import shim.start.inject.follow, shim.host.process_tree, select, _signal\n"
        "from shim.start.digest import sha256; sha256(b'')\n"
    )
    assert outside(names) <= NOTHING_TO_DO | INJECTION
