"""One screen for each state that a host can be in, with the one step that helps."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shim import cli
from shim.cli.doctor import show
from shim.risk import doctor
from shim.risk.doctor import Checked, Log
from support.checkout import CHECKOUT

GOLDEN = Path(__file__).parent / "golden"
SCHEMA = json.loads((CHECKOUT / "docs/doctor.schema.json").read_text())
LOG = Log(
    path="/var/log/seccomp-shim/audit.jsonl", size=48_213, rotated=7_300_000, limit="64 MB x 4"
)
RUNC = {"path": "/usr/sbin/runc", "program": "runc 1.1.5", "libseccomp": "2.5.4"}
CRUN = {"path": "/usr/bin/crun", "program": "crun 1.21", "libseccomp": "2.6.0"}
PROFILE = {
    "file": "/usr/share/containers/seccomp.json",
    "used_by": [{"who": "podman, CRI-O (default)", "where": "(built in)"}],
    "calls": {"uretprobe": {"verdict": "denied-by-default"}},
}
WRAPPER = "/opt/seccomp-shim/bin/seccomp-shim-runtime"


def engine(name: str = "docker", *, covered: bool = False, **more: Any) -> dict[str, Any]:
    """Return an engine as status tells it."""
    entries = [{"file": "f", "name": "seccomp-shim", "path": WRAPPER, "exists": True}]
    return {
        "engine": name,
        "present": True,
        "registered": covered,
        "covers_all": covered,
        "entries": entries if covered else [],
        "version": "20.10.24" if name == "docker" else "",
        "problems": [],
        "notes": [],
        **more,
    }


def host(
    *engines: dict[str, Any],
    state: str = "filtered",
    verdict: str = "exposed",
    why: str = "uretprobe filtered; Docker 20.10.24 has a built-in profile that denies",
    profiles: Any = (),
    **more: Any,
) -> Checked:
    """Return a host of which this is known; the rest is in order."""
    facts: Mapping[str, Any] = {
        "kernel": {"release": "6.12.9"},
        "syscalls": {"uretprobe": {"state": state}, "uprobe": {"state": "absent"}},
        "runtimes": [RUNC],
        "profiles": list(profiles),
        "engines": [*engines, {**engine("crio"), "present": False}],
    }
    given: dict[str, Any] = {
        "endangered": {},
        "elsewhere": {},
        "left_out": {"docker": "containers made before, those with a --runtime of their own"},
        "log": LOG,
    }
    return Checked(facts=facts, verdict=verdict, why=why, **{**given, **more})


QUIET = {"state": "exempt", "verdict": "not affected", "why": "uretprobe exempt"}
SAFE = {"verdict": "protected", "why": "every engine starts containers through the wrapper"}
BROKEN = "/etc/docker/daemon.json: our entries are gone: seccomp-shim install docker"
SCREENS = {
    "nothing": host(engine(), **QUIET),
    "protected": host(engine(covered=True), **SAFE),
    "exposed": host(engine(), endangered={"docker web": 3, "docker db": 1}),
    "exposed-measured": host(
        engine(), log=replace(LOG, milliseconds=18.25, timed=120), endangered={"docker web": 3}
    ),
    "podman": host(
        engine("podman"),
        profiles=[PROFILE],
        why="uretprobe filtered; 1 profile denies by default",
        left_out={"podman": "podman --runtime /a/path"},
    ),
    "several": host(engine(), engine("containerd"), engine("podman", covered=True)),
    "not-installable": host(
        engine(), left_out={"docker": "it cannot be installed as things are: daemon.json: no JSON"}
    ),
    "older-containers": host(
        engine(covered=True),
        **SAFE,
        endangered={"docker a": 1, "docker b": 2, "docker c": 1, "docker d": 1, "podman e": 9},
    ),
    "entries-gone": host(engine(problems=[BROKEN])),
    "not-read": host(engine(covered=True, known=False, problems=["restart it"]), **SAFE),
    "untold": host(engine(registered=None, problems=["/etc/docker/daemon.json: no JSON"])),
    "settings": host(engine(covered=True), **SAFE, settings="config.yaml: on_error: 'maybe'"),
    "log": host(
        engine(covered=True),
        **SAFE,
        log=replace(LOG, trouble="the log cannot be written: its file system is read-only"),
    ),
    "wrong": host(engine(covered=True), **SAFE, log=replace(LOG, wrong=2)),
    "test-on": host(engine(), **QUIET, test=["the settings have the test syscall 400 let through"]),
    "unknown-kernel": host(
        engine(), state="unknown", verdict="unknown", why="the kernel could not be asked"
    ),
    "no-root": host(
        engine(covered=True),
        **SAFE,
        root=False,
        endangered=None,
        elsewhere=None,
        unscanned="only root can read the filters of processes (run it with sudo)",
    ),
    "no-engine": host(**QUIET),
    "elsewhere": host(
        engine(), **QUIET, elsewhere={"docker web": 3}, test=["the test syscall 400 is on"]
    ),
}


@pytest.mark.parametrize("name", SCREENS)
def test_screen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each state has its screen, of 80 columns, and its document."""
    found = SCREENS[name]
    show(found, 80)
    text = capsys.readouterr().out
    assert text == (GOLDEN / f"doctor-{name}.txt").read_text()
    assert max(map(len, text.splitlines())) <= 80
    jsonschema.validate(doctor.document(found), SCHEMA)
    assert (doctor.step(found) is None) == (text.count("\n") == 1)


def test_the_whole_screen_can_be_had_with_nothing_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """--verbose shows what was looked at."""
    show(SCREENS["nothing"], 80, whole=True)
    assert capsys.readouterr().out == (GOLDEN / "doctor-verbose.txt").read_text()


def test_this_host(capsys: pytest.CaptureFixture[str]) -> None:
    """On the host that tests, the document is as the schema says, and the status as the step."""
    code = cli.main(["doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, SCHEMA)
    assert code == (1 if document["step"] else 0)
    assert document["runtimes"]
