"""What the engine's environment, its directory and an image's config say runs no code as root."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shim.engines import oci
from support.containers import OTHER_TEST_SYSCALL, OUTPUT, TEST_SYSCALL, profile, real
from support.wrapped import WrappedLab, script

# What the wrapper, its hooks and Python might look for by name.
PROGRAMS = ("awk", "basename", "cat", "date", "dirname", "env", "id", "ldconfig", "ld.so", "mkdir",
            "nice", "printf", "python", "python3", "readlink", "rm", "sed", "setsid", "sh", "stat",
            "test", "true", "uname")  # fmt: skip
MODULES = ("shim", "sitecustomize", "usercustomize", "os", "json", "ctypes", "signal", "gc", "time")


@pytest.fixture(params=["runc", "crun"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> WrappedLab:
    """Return the wrapper before each runtime."""
    return WrappedLab(tmp_path, real(request.param))


class Trap:
    """A directory of programs and modules, each of which leaves a trace when it runs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.trace = folder.parent / "trace"
        for name in PROGRAMS:
            script(folder / name, f'echo "program {name}" >>{self.trace}\nexit 1')
        for name in MODULES:
            text = (
                f"open({str(self.trace)!r}, 'a').write('module {name}\\n')\nraise SystemExit(9)\n"
            )
            (folder / f"{name}.py").write_text(text)

    def sprung(self) -> str:
        """Tell what has run."""
        return self.trace.read_text() if self.trace.exists() else ""

    @property
    def environment(self) -> dict[str, str]:
        """Return an environment in which all of it is found first."""
        folder = str(self.folder)
        python = {"PYTHONPATH": folder, "PYTHONHOME": folder, "PYTHONSTARTUP": f"{folder}/os.py"}
        more = {"PYTHONINSPECT": "1", "PYTHONUSERBASE": folder, "PYTHONPLATLIBDIR": folder}
        shell = {
            "ENV": f"{folder}/date",
            "BASH_ENV": f"{folder}/date",
            "IFS": "/",
            "CDPATH": folder,
        }
        ours = {"shim_python": f"{folder}/python3", "shim_packages": folder, "shim_real": folder}
        path = f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"
        return python | more | shell | ours | {"PATH": path, "HOME": folder, "TMPDIR": folder}


def test_the_trap_springs(tmp_path: Path) -> None:
    """The control: who looks for programs and modules in the ordinary way does meet it."""
    trap = Trap(tmp_path / "trap")
    environment = trap.environment
    subprocess.run(["/bin/sh", "-c", "date; id"], env=environment, check=False)
    del environment["PYTHONHOME"], environment["PYTHONPLATLIBDIR"]
    subprocess.run(["/usr/bin/python3", "-c", "1"], env=environment, check=False)
    assert "program date" in trap.sprung()
    assert "module sitecustomize" in trap.sprung()


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_nothing_of_the_environment_is_run(lab: WrappedLab, tmp_path: Path, on_error: str) -> None:
    """A start is adjusted as ever, or refused where the log cannot be written, by our code only.

    The engine's directory is the trap as well: Python would look for modules there.
    """
    trap = Trap(tmp_path / "trap")
    folder = lab.folder / "bundle"
    folder.mkdir()
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)))
    log = f"{lab.folder}/engine.log"
    options = ["--log", log, "--log-format", "json", "run", "--bundle", str(folder)]
    command = oci.command(lab.runtime, *options, f"shim-trap-{os.getpid()}")
    done = _run(command, trap)
    assert done.stdout == OUTPUT, done.stderr
    lab.configure(on_error, log=lab.folder / "missing/audit.jsonl")
    done = _run(command, trap)
    assert done.returncode == (0 if on_error == "allow" else 1)
    assert trap.sprung() == ""


def test_a_broken_installation_runs_nothing_of_the_environment(
    lab: WrappedLab, tmp_path: Path
) -> None:
    """Where the shell part alone is left it still says so in the log, by the system's programs."""
    trap = Trap(tmp_path / "trap")
    text = lab.wrapper.read_text()
    lab.wrapper.write_text(text.replace("shim_packages='", "shim_packages='/nowhere"))
    log = f"{lab.folder}/engine.log"
    command = [lab.runtime, "--log", log, "--log-format", "json", "create", "--bundle", "/nowhere"]
    _run([*command, "c1"], trap)
    line = json.loads(Path(log).read_text().splitlines()[0])
    assert "not whole" in line["msg"]
    assert trap.sprung() == ""


def _run(command: list[str], trap: Trap) -> "subprocess.CompletedProcess[str]":
    # The interpreter that the engine itself would be: only what it calls has the environment.
    inside = ["/usr/bin/env", f"--chdir={trap.folder}", *command]
    if command[0] == "unshare":
        command[0] = "/usr/bin/unshare"
        command[command.index("sh")] = "/bin/sh"
        command[command.index('mount -t cgroup2 none /sys/fs/cgroup && exec "$@"')] = (
            '/usr/bin/mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
        )
        inside = ["/usr/bin/env", f"--chdir={trap.folder}", *command]
    return subprocess.run(
        inside, input="\n", capture_output=True, text=True, check=False, env=trap.environment,
        timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("where", ["process", "hook"])
def test_nothing_of_an_image_s_environment_is_run(
    lab: WrappedLab, tmp_path: Path, where: str
) -> None:
    """Whatever variables a container is given, our hooks and our tracer do not see them.

    The hook of somebody else in the same config.json has such an environment, too.
    """
    trap = Trap(tmp_path / "trap")
    folder = lab.folder / "bundle"
    folder.mkdir()
    variables = [f"{name}={value}" for name, value in trap.environment.items()]
    hooks: dict[str, list[dict[str, Any]]] = {}
    if where == "hook":
        # It reads the state, which crun 1.8 fails without.
        entry = {"path": "/usr/bin/tail", "args": ["tail", "-n", "0"], "env": variables}
        hooks = {"createRuntime": [entry], "poststart": [entry]}
    oci.bundle(folder, profile(), oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL)), hooks=hooks)
    config = json.loads((folder / "config.json").read_text())
    config["process"]["env"] = variables if where == "process" else ["PATH=/usr/bin"]
    (folder / "config.json").write_text(json.dumps(config))
    with oci.started(lab.runtime, folder, f"shim-image-{os.getpid()}") as process:
        output, errors = process.communicate("\n", timeout=60)
    assert output == OUTPUT, errors
    assert trap.sprung() == ""
