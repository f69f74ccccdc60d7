"""What the report on many hosts makes of runs."""

from pathlib import Path
from typing import Any

import pytest

from shim.cli.fleet.runs import described
from shim.fleet import report, store

FILE = "/etc/docker/seccomp.json"
CALLS = ("uretprobe", "uprobe")
REASON = "uretprobe, uprobe: no effect: /usr/sbin/runc (libseccomp 2.5.4) drops the name"


def facts() -> dict[str, Any]:
    """Return what an affected host with one denying profile has told."""
    calls = {name: {"verdict": "denied-by-default", "reason": ""} for name in CALLS}
    profile = {"file": FILE, "format": "docker", "state": "denies by default", "calls": calls}
    return {
        "kernel": {"release": "6.12.8"},
        "syscalls": {"uretprobe": {"state": "filtered"}, "uprobe": {"state": "absent"}},
        "runtimes": [{"path": "/usr/sbin/runc", "program": "runc 1.1.5", "libseccomp": "2.5.4"}],
        "engines": [],
        "profiles": [{**profile, "used_by": []}],
        "notes": [],
    }


def patched(effect: str) -> dict[str, Any]:
    """Return the file of a host as its agent has told of it."""
    reason = REASON if effect == "none" else ""
    return {"file": FILE, "result": "patched", "reason": reason, "effect": effect}


@pytest.mark.parametrize(
    ("effect", "state"), [("none", "no effect"), ("all", "allows"), ("unknown", "allows")]
)
def test_a_patched_profile_without_effect_is_not_counted_as_allowing(
    tmp_path: Path, effect: str, state: str
) -> None:
    """What no runtime of the host takes is counted as such, and its reason kept for the page."""
    line = {"host": "web", "reason": ""}
    with store.opened(str(tmp_path)) as opened:
        for kind, more in (
            ("facts", {"result": "asked", "facts": facts()}),
            ("apply", {"result": "changed", "files": [patched(effect)]}),
        ):
            book = opened.begin(kind, [["web"]], paths=[], homes=False)
            book.settle({**line, **more})
            book.end("done")
        [host] = report.document(opened, ["web"], "hosts.yml")["hosts"]
    assert host["profiles"] == {state: 1}
    [file] = host["changes"][0]["files"]
    assert (file["effect"], file["reason"]) == (effect, REASON if effect == "none" else "")


def test_the_line_of_a_host_says_no_effect() -> None:
    """Who plans or applies sees beside the host that nothing comes of it there."""
    line = {"host": "web", "result": "would change", "reason": "", "files": [patched("none")]}
    assert described(line) == ("would change", f"1 file, {REASON}")
    assert described({**line, "files": [patched("all")]}) == ("would change", "1 file")
