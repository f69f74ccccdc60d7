"""The runtime wrapper in a directory of its own, called as an engine calls it."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from shim import configfile
from shim.engines.registration import hookfile
from support.containers import TEST_SYSCALL, Lab


class WrappedLab(Lab):
    """A lab whose runtime is a script that puts the wrapper's options first, as dockerd's do."""

    def __init__(self, folder: Path, real: str, *, test_syscall: int = TEST_SYSCALL) -> None:
        """Render all executables; ``real`` is the path of the real runtime."""
        super().__init__(folder, real)
        self.real = real
        self.bin = folder / "bin"
        self.bin.mkdir()
        hookfile.render_all(self.bin)
        self.wrapper = self.bin / "seccomp-shim-runtime"
        self.use(test_syscall)

    def use(self, test_syscall: int, *more: str) -> None:
        """Call the wrapper with ``test_syscall`` (0: none) and ``more`` options from now on."""
        options = ["--config", f"{self.folder}/config.yaml", "--real-runtime", self.real, *more]
        if test_syscall:
            options += ["--test-syscall", str(test_syscall)]
        # Named as the real one: crun is started otherwise than runc (shim.engines.oci.command).
        self.runtime = script(
            self.folder / os.path.basename(self.real),
            f'exec {shlex.join([str(self.wrapper), *options])} "$@"',
        )

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the log's lines of one kind."""
        return [line for line in self.log() if line["event"] == event]


def name_of(lab: WrappedLab) -> str:
    """Tell runc from crun."""
    return os.path.basename(lab.real)


def config_of(folder: Path) -> dict[str, Any]:
    """Read the bundle's config.json."""
    document: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return document


def apart(wrapper: Path, cache: Path) -> None:
    """Have ``wrapper`` look in ``cache`` for word of the kernel, not where this host has it."""
    text = wrapper.read_text()
    assert text.count("shim_cache=/run/seccomp-shim\n") == 1
    wrapper.write_text(text.replace("shim_cache=/run/seccomp-shim\n", f"shim_cache={cache}\n"))


def script(path: Path, body: str) -> str:
    """Write an executable shell script; give its path."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


class Recorder:
    """A real runtime and an interpreter that only record how they are called."""

    def __init__(self, folder: Path) -> None:
        """Render the wrapper with an interpreter that says go."""
        self.folder = folder
        self.calls = folder / "calls"
        self.python_calls = folder / "python-calls"
        self.real = script(folder / "real", _RECORD.format(self.calls))
        self.python = script(folder / "python", f"{_RECORD.format(self.python_calls)}\nexit 0")
        self.bin = folder / "bin"
        self.bin.mkdir()
        hookfile.render_all(self.bin, self.python)
        self.wrapper = str(self.bin / "seccomp-shim-runtime")
        self.cache = folder / "run"
        apart(Path(self.wrapper), self.cache)
        self.config = folder / "none.yaml"

    def configure(self, text: str) -> None:
        """Write and compile settings for the wrapper."""
        self.config.write_text(text)
        self.config.chmod(0o644)
        configfile.compile_file(str(self.config))

    def call(self, *args: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Call the wrapper with the recording runtime; the status is the caller's to look at."""
        own = ["--config", str(self.config), "--real-runtime", self.real]
        return self.run(self.wrapper, *own, *args, **options)

    def run(self, *command: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run any command with the records empty."""
        for record in (self.calls, self.python_calls):
            record.unlink(missing_ok=True)
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    def received(self) -> list[str] | None:
        """Return what the real runtime got last, None if it was not called."""
        return _read(self.calls)

    def interpreted(self) -> bool:
        """Tell whether the interpreter was started."""
        return self.python_calls.exists()


_RECORD = 'for each; do printf "%s\\0" "$each"; done >{}'


def _read(path: Path) -> list[str] | None:
    return path.read_text().split("\0")[:-1] if path.exists() else None
