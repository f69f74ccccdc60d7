"""What a test needs of the machine: skip without it, or fail where SHIM_TESTS=require."""

import os
import shutil


def kernel(condition: bool, why: str) -> None:
    """Go on only if ``condition`` holds; ``why`` names what is missing."""
    if condition:
        return
    import pytest  # not in the user lands whose own interpreters run parts of the tests

    if os.environ.get("SHIM_TESTS") == "require":
        pytest.fail(f"SHIM_TESTS=require, but {why}")
    pytest.skip(f"{why} (SHIM_TESTS=require makes this a failure)")


def root() -> None:
    """Go on only as root."""
    kernel(os.geteuid() == 0, "this needs root")


def program(name: str) -> str:
    """Go on only if ``name`` is on PATH; give its path."""
    path = shutil.which(name)
    kernel(path is not None, f"{name} is not installed")
    assert path is not None
    return path


def harmless_probes() -> None:
    """Go on only where root's uretprobes reach containers and no filter decides about them."""
    from pathlib import Path

    from shim.host.cache import facts

    root()
    kernel(Path("/sys/bus/event_source/devices/uprobe").exists(), "no uprobes here")
    state = facts()["syscalls"]["uretprobe"]["state"]
    kernel(state in ("exempt", "absent"), "what is proven here is shown where nobody dies")


def output(*command: str) -> str:
    """Return what a program prints that must be there."""
    import subprocess

    program(command[0])
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
