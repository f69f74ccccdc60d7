"""The verb probe as a user calls it."""

import json
import os
import subprocess
import sys

import pytest

from shim import cli
from shim.cli import probe
from shim.host.cache import facts

DOCUMENT = {
    "kernel": {"release": "6.12.1\x1b[2J", "machine": "x86_64", "boot_id": "0-1-2"},
    "syscalls": {
        "uretprobe": {"nr": 335, "state": "filtered"},
        "uprobe": {"nr": 336, "state": "unknown", "reason": "nobody says"},
    },
    "prober": {"filtered": True},
    "ptrace": {"yama_scope": 3},
    "libseccomp": {"error": "cannot load it"},
    "runtimes": {"/usr/bin/crun": None},
}


def test_the_json_document_says_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    """The document carries the probe's facts and those of libraries and runtimes."""
    assert cli.main(["probe", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"kernel", "syscalls", "prober", "ptrace", "libseccomp", "runtimes"} == document.keys()
    assert document["syscalls"] == facts()["syscalls"]
    assert document["kernel"]["release"] == os.uname().release
    assert document["libseccomp"]["resolves"].keys() >= document["syscalls"].keys()


def test_fresh_asks_again(capsys: pytest.CaptureFixture[str]) -> None:
    """A fresh look at the same kernel finds the same."""
    cli.main(["probe", "--json"])
    kept = json.loads(capsys.readouterr().out)
    assert cli.main(["probe", "--json", "--fresh"]) == 0
    assert json.loads(capsys.readouterr().out) == kept


def test_people_get_a_line_a_fact(capsys: pytest.CaptureFixture[str]) -> None:
    """Every call stands there with its verdict and what that means."""
    assert cli.main(["probe"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, call in facts()["syscalls"].items():
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        assert call["state"] in line
    assert all(len(line) <= 80 for line in lines)


def test_the_words_fit_the_facts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What endangers containers or stops the hook is said, and no control character passes."""
    monkeypatch.setattr(probe, "_host", lambda *, fresh: DOCUMENT)  # noqa: ARG005 - its signature
    assert cli.main(["probe"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "uretprobe filtered a profile that does not know it kills the process" in told
    assert "uprobe unknown it could not be told: nobody says" in told
    assert "was made under a seccomp filter itself" in told
    assert "the hook cannot trace" in told
    assert "crun with libseccomp of unknown version" in told
    assert "6.12.1\\x1b[2J" in told


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """Output into a closed pipe ends quietly, with exit status 2."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "shim", "probe"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 2
