"""The verb prove: real probes on processes of our own, and nothing left of them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shim import cli
from shim.cli import prove as verb
from shim.engines import oci
from shim.errors import ShimError
from shim.host import processes
from shim.risk import prove
from shim.risk.prove import Proof
from shim.risk.sides import Unasked
from shim.risk.uprobe import Uretprobe, function_offset
from support import need
from support.checkout import CHECKOUT
from support.containers import real

SCHEMA = json.loads((CHECKOUT / "docs/prove.schema.json").read_text())


@pytest.fixture(autouse=True)
def _probes() -> None:
    need.harmless_probes()


def proven(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Prove something that lives; hold the document to its schema."""
    assert cli.main(["prove", "--json", *words]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, SCHEMA)
    return document


@pytest.fixture(autouse=True)
def _told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have programs of our own to probe: another worker's are as alive."""
    monkeypatch.setattr(prove, "_PAYLOAD", f"{prove._PAYLOAD}# {os.getpid()}\n")


def ours() -> set[int]:
    """Return the processes that are probed."""
    found = set()
    for pid in processes.pids():
        try:
            if prove._PAYLOAD in processes.command_line(pid):
                found.add(pid)
        except OSError:
            continue
    return found


def test_a_child_is_probed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Hits are counted on both sides, by any profile that lets a program run."""
    profile = tmp_path / "own.json"
    profile.write_text((CHECKOUT / "profiles/docker/default.json").read_text())
    for words in ((), ("--profile", str(profile))):
        document = proven(capsys, *words)
        for side in ("without", "with"):
            assert document[side]["lived"]
            assert document[side]["hits"] >= prove.HITS
    assert ours() == set()


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_a_container_is_probed(runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A container of the real runtime has its hits counted, and is gone afterwards."""
    document = proven(capsys, "--runtime", real(runtime))
    assert document["without"]["hits"] >= prove.HITS
    assert document["with"]["hits"] >= prove.HITS
    assert ours() == set()
    assert not list(Path("/run", runtime).glob("seccomp-shim-prove-*"))


def test_a_death_is_told() -> None:
    """What a process under the probe died of is its signal; nothing is called a life."""
    with subprocess.Popen(prove.command(), stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()

        def code() -> int | None:
            process.kill()
            return 128 - process.wait()

        assert prove.probed(process.pid, code)[:2] == (False, "SIGKILL")


def test_a_death_before_anything_is_counted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The breakpoint is there before the event: who dies of it at once dies in between."""
    with subprocess.Popen(prove.command(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

        def die(path: Path, name: str) -> int:
            found = function_offset(path, name)
            process.send_signal(signal.SIGSEGV)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            return found

        monkeypatch.setattr(prove, "function_offset", die)
        proof = prove.probed(process.pid, lambda: prove._code(process.poll()))
    assert proof == Proof(False, "SIGSEGV", 0)


def test_a_probe_is_of_one_process_alone() -> None:
    """Another process that calls the same function is not counted."""
    with (
        subprocess.Popen(prove.command(), stdout=subprocess.PIPE) as one,
        subprocess.Popen(["sleep", "60"]) as idle,
    ):
        assert one.stdout
        one.stdout.readline()
        deadline = time.monotonic() + 10
        while not (library := prove._libc(idle.pid)):
            assert time.monotonic() < deadline
        offset = function_offset(Path(library), "toupper")
        probe = Uretprobe(Path(library), offset, idle.pid)
        time.sleep(0.05)
        assert probe.hits() == 0
        probe.close()
        for each in (one, idle):
            each.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_end_from_outside_leaves_nothing(number: signal.Signals) -> None:
    """SIGTERM takes the container along, and so does the end of the terminal."""
    words = ["prove", "--runtime", real("runc")]
    code = (
        "import sys; from shim import cli; from shim.risk import prove; "
        f"prove._PAYLOAD = {prove._PAYLOAD!r}; sys.exit(cli.main({words!r}))"
    )
    command = [sys.executable, "-P", "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        deadline = time.monotonic() + 30
        while not ours():
            assert time.monotonic() < deadline
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait() == 128 + number
    deadline = time.monotonic() + 10
    while ours():
        assert time.monotonic() < deadline
    assert not list(Path("/run/runc").glob("seccomp-shim-prove-*"))


def test_a_runtime_that_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor its child, which holds the pipes, when it is killed; exit status 2."""
    pids = tmp_path / "pids"
    silent = tmp_path / "runtime"
    says = 'case "$1" in run|delete) ;; *) echo runc version 1.1.5; exit;; esac'
    silent.write_text(f"#!/bin/sh\n{says}\nsleep 60 &\necho $! >> {pids}\nwait\n")
    silent.chmod(0o755)
    monkeypatch.setattr(oci, "_SECONDS", 0.3)
    monkeypatch.setattr(oci, "_END_SECONDS", 0.1)
    try:
        assert cli.main(["prove", "--runtime", str(silent)]) == 2
        assert "is not ready in 0.3 seconds" in capsys.readouterr().err
    finally:
        for pid in map(int, pids.read_text().split()):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--profile", "/nowhere.json"], "/nowhere.json: No such file or directory"),
        (["--runtime", "/nowhere"], "/nowhere: no such runtime"),
        (["--engine", "docker", "--profile", "x"], "an engine has its own profile"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What failed, on what; exit status 2."""
    assert cli.main(["prove", *words]) == 2
    assert capsys.readouterr().err.startswith(f"seccomp-shim prove: {said}")


def test_a_profile_that_runs_nothing_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where no program starts there is nothing to probe."""
    profile = tmp_path / "none.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_KILL_PROCESS"}))
    assert cli.main(["prove", "--profile", str(profile)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_screen_where_it_kills(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is shown on an affected kernel is the page's own example; the status tells a death."""
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("", "", "6.12.90", "", "x86_64")))
    monkeypatch.setattr("shim.risk.scan.state", lambda _call: "filtered")
    dead, alive = Proof(False, "SIGSEGV", 0), Proof(True, "", 25)
    monkeypatch.setattr(prove, "of_child", lambda _profile: (dead, alive))
    monkeypatch.setattr(verb, "_profile", lambda _name: {})
    assert cli.main(["prove"]) == 0
    shown = capsys.readouterr().out
    assert shown in (CHECKOUT / "docs/prove.md").read_text()
    for after, status in ((dead, 1), (alive, 0)):
        monkeypatch.setattr(prove, "of_engine", lambda _engine, after=after: (dead, after))
        assert cli.main(["prove", "--engine", "docker"]) == status
        assert "died of SIGSEGV" in capsys.readouterr().out


def test_a_side_that_cannot_be_asked_for_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 80 columns, with the runtime of the other side; the exit status is neither outcome."""
    dead = Proof(False, "SIGSEGV", 0, "runc")
    missing = Unasked("not registered: seccomp-shim install docker")
    monkeypatch.setattr(prove, "of_engine", lambda _engine: (dead, missing))
    assert cli.main(["prove", "--engine", "docker"]) == 3
    shown = capsys.readouterr().out
    assert "without the shim   by runc\n" in shown
    assert f"with the shim      {missing.why}\n" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_only_root_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are told so."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ShimError, match="only root"):
        verb.run(None)  # type: ignore[arg-type]
