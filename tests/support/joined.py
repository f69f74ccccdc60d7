"""Processes that join a running container: ``RUNTIME exec``, plain and through the wrapper."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shim.engines import oci
from support.containers import OTHER_TEST_SYSCALL, TEST_SYSCALL, Container, Lab
from support.wrapped import WrappedLab

PYTHON = os.path.realpath(sys.executable)


class Joiner:
    """A container that the real runtime started alone, and the wrapper for what joins it."""

    def __init__(self, folder: Path, real: str) -> None:
        """Keep the plain runtime's directory apart from the wrapper's."""
        for name in ("plain", "wrapped"):
            (folder / name).mkdir()
        self.plain = Lab(folder / "plain", real)
        self.wrapped = WrappedLab(folder / "wrapped", real)
        self.real = real
        self.caller = oci.caller((TEST_SYSCALL, OTHER_TEST_SYSCALL))
        self.container: Container

    @contextmanager
    def joinable(self, **bundle: Any) -> Iterator[Container]:
        """Start a container, and keep it for what joins it."""
        with self.plain.container(**bundle) as self.container:
            self.container.ready()
            yield self.container

    def command(self, *args: str, plain: bool = False) -> list[str]:
        """Return the command line of an exec; ``args`` are its options, the program's follow ID."""
        runtime = self.real if plain else self.wrapped.runtime
        words = [self.container.name if word == "ID" else word for word in args]
        return oci.command(runtime, "exec", *words)

    def run(
        self, *args: str, plain: bool = False, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        """Run an exec to its end."""
        if "input" not in options:
            options["stdin"] = subprocess.DEVNULL
        return subprocess.run(
            self.command(*args, plain=plain),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            **options,
        )

    def outcomes(self, *options: str, plain: bool = False) -> dict[int, int]:
        """Return what the two test_syscall calls of a joined process end with."""
        done = self.run(*options, "ID", *self.caller, plain=plain, input="\n")
        assert done.returncode == 0, done.stderr
        return outcomes(done.stdout)


def outcomes(output: str) -> dict[int, int]:
    """Read what an ``oci.caller`` printed, be it over a terminal."""
    _, _, results = output.partition("ready")
    words = results.split()
    return dict(zip(map(int, words[::2]), map(int, words[1::2]), strict=True))


def code(text: str) -> list[str]:
    """Return the command that runs Python ``text``."""
    return [PYTHON, "-IS", "-c", text]
