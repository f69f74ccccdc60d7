"""Documents of the report on many hosts, as the page gets them."""

import json
from collections.abc import Mapping
from typing import Any

from shim.profile.diff import unified
from support.profiles import DOCKER

VERDICTS = {
    each: f"what it is to be {each}"
    for each in (
        *("exposed", "failed", "unreachable", "not asked"),
        *("unknown", "protected", "not affected"),
    )
}
OLD = json.dumps(DOCKER, indent=1) + "\n"
NEW = OLD.replace('"syscalls": [', '"syscalls": [\n  {"names": ["uretprobe"]},')
DIFF = unified(OLD, NEW, "/etc/docker/seccomp.json")
BACK = unified(NEW, OLD, "/etc/docker/seccomp.json")
HOSTILE = (
    "<script>hit = 1</script>",
    '"><img src=x onerror="hit = 1">',
    "'><svg onload=hit=1>",
    "</style></script></title><iframe src=https://example.org>",
    "javascript:hit=1",
    "{{ 7 * 7 }}{% raw %}&amp;&lt;",
    "\x00\x08\x1b[2J\r\n\u202egnp.exe\u2028\ud800",
)


def host(host: str, verdict: str, state: str = "", **more: Any) -> dict[str, Any]:
    """Return a host; ``state`` is what its kernel does with uretprobe, empty: it told no facts."""
    calls = {"uretprobe": state, "uprobe": "exempt"} if state else {}
    about = {"host": host, "verdict": verdict, "why": f"{verdict}, and why", "calls": calls}
    about |= {"kernel": "", "asked": "2026-11-25T17:50:00.123456Z" if state else ""}
    about |= {"libseccomp": [], "engines": [], "profiles": {}, "changes": []}
    return {**about, "problems": [], "notes": [], **more}


def change(number: int, kind: str, result: str, files: Mapping[str, str], diff: str) -> Any:
    """Return a change in run ``number``; ``files`` with the result of each."""
    return {
        "run": f"0000{number}-20261125T180000",
        "time": f"2026-11-25T18:0{number}:00.000000Z",
        "kind": kind,
        "result": result,
        "reason": "",
        "files": [{"file": f, "result": r, "reason": ""} for f, r in files.items()],
        "diff": diff,
    }


def document(*hosts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document about hosts."""
    runs = [
        {"run": "00001-20261125T175000", "kind": "facts", "time": "2026-11-25T17:50:00.000000Z"},
        {"run": "00003-20261125T180300", "kind": "apply", "time": "2026-11-25T18:03:00.000000Z"},
    ]
    return {
        "made": "2026-11-25T18:10:00.000000Z",
        "version": "0.1.0",
        "inventory": "hosts.yml",
        "verdicts": VERDICTS,
        "hosts": list(hosts),
        "runs": [
            {**runs[0], "ended": "done", "why": "", "hosts": {"asked": 9, "unreachable": 1}},
            {**runs[1], "ended": "stopped", "why": "web3 failed", "hosts": {"changed": 2}},
        ],
    }


def example() -> dict[str, Any]:
    """Return hosts of every verdict, some of them changed."""
    patched = change(3, "apply", "changed", {"/etc/docker/seccomp.json": "patched"}, DIFF)
    undone = {"/etc/docker/seccomp.json": "rolled back"}
    told: dict[str, Any] = {
        "libseccomp": ["/usr/sbin/runc 2.5.4", "/usr/bin/crun 2.5.4"],
        "engines": ["docker", "podman"],
        "profiles": {"allows": 1, "denies by default": 2},
    }
    failed = {
        **change(3, "apply", "failed", {"/etc/docker/seccomp.json": "failed"}, ""),
        "reason": "/etc/docker/seccomp.json: No space left on device",
    }
    return document(
        host("db2", "not affected", "absent", kernel="6.1.0-41-amd64", **told),
        host("db10", "not affected", "exempt", kernel="6.18.4", **told),
        host("web1", "protected", "filtered", kernel="6.12.8", **told, changes=[patched]),
        host("web2", "protected", "filtered", kernel="6.12.8", **told, changes=[patched]),
        host(
            "web3",
            "exposed",
            "filtered",
            kernel="6.12.8-cloud-amd64",
            why="uretprobe filtered; 2 profiles deny by default; /usr/sbin/runc with libseccomp "
            "2.5.4 drops the name uretprobe: install the wrapper",
            **told,
            problems=["docker: the wrapper is registered, but not the default runtime"],
            changes=[patched, change(4, "rollback", "rolled back", undone, BACK)],
        ),
        host("web10", "exposed", "filtered", kernel="6.9.1", **told),
        host(
            "edge1",
            "failed",
            "filtered",
            kernel="6.12.8",
            **told,
            why=failed["reason"],
            problems=[failed["reason"]],
            changes=[failed],
        ),
        host("edge2", "unreachable", why="ssh: connect to host edge2 port 22: timed out"),
        host("edge3", "not asked", why="fleet facts has not asked it"),
        host("lab1", "unknown", "unknown", kernel="6.14.0", **told, notes=["/srv: no such file"]),
    )
