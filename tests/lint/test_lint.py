"""The linters, as tests."""

import subprocess
import sys
from pathlib import Path

import pytest

from shim.engines.registration import hookfile
from support import need
from support.checkout import CHECKOUT

_SHEBANGS = {b"#!/bin/sh", b"#!/usr/bin/env bash", b"#!/bin/bash"}
_BIN = Path(sys.executable).parent


def _passes(*command: str) -> None:
    result = subprocess.run(
        command,
        cwd=CHECKOUT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "command",
    ["ruff check", "ruff format --check", "mypy", "lint-imports --no-cache"],
)
def test_python_is_clean(command: str) -> None:
    """All Python passes the linters as pyproject.toml sets them."""
    program, *arguments = command.split()
    _passes(str(_BIN / program), *arguments)


def _shell_scripts() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, text=True, stdout=subprocess.PIPE, check=True
    )
    paths = [CHECKOUT / name for name in listed.stdout.split("\0") if name]
    return [
        str(path)
        for path in paths
        if path.is_file() and path.open("rb").readline().rstrip() in _SHEBANGS
    ]


def test_shell_is_clean(tmp_path: Path) -> None:
    """Every shell script of the project passes shellcheck; what engines call, as installed."""
    need.program("shellcheck")
    need.program("git")
    scripts = _shell_scripts()
    assert str(CHECKOUT / "install.sh") in scripts
    installed = hookfile.render_all(tmp_path).glob("seccomp-shim-*")
    _passes("shellcheck", *scripts, *map(str, installed))


def test_nobody_is_told_to_fetch_our_name() -> None:
    """No sentence has a user install our name from an index: whoever claims it there owns them."""
    need.program("git")
    done = subprocess.run(
        ["git", "grep", "-nE", r"(pip|pipx|conda) install (-[^ ]+ )*['\"]?seccomp[-_]shim"],
        cwd=CHECKOUT,
        text=True,
        capture_output=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if not line.startswith("tests/lint/")]
    assert found == []
