"""The overlay that patches the kubelet's profiles, run by a real containerd with its rights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from node.manifests import template
from node.nodes import Node
from shim.catalog import kernel_injected
from shim.errors import ShimError
from shim.host import cache
from shim.node.profiles import Profiles
from support.checkout import CHECKOUT

SPEC = template("overlays/profiles")
PROBE = SPEC["containers"][0]["readinessProbe"]
FOLDER = "/var/lib/kubelet/seccomp"
SOURCE = CHECKOUT / "profiles/docker/default.json"
OFTEN = [*SPEC["containers"][0]["args"][:2], "0.02", FOLDER]  # minutes
_BOOT = "/proc/sys/kernel/random/boot_id"


def _affected(node: Node) -> dict[int, Any]:
    """Have pods believe, by one more mount, that this kernel kills containers."""
    found = {
        "kernel": {
            "release": node.host.run("uname -r").stdout.strip(),
            "machine": "x86_64",
            "boot_id": node.host.run(f"cat {_BOOT}").stdout.strip(),
        },
        "syscalls": {
            name: {"nr": call.numbers["x86_64"], "state": "filtered"}
            for name, call in kernel_injected().items()
        },
        "prober": {"filtered": False},
    }
    folder = node.folder / "probed"
    folder.mkdir()
    (folder / "probe.json").write_text(json.dumps(found))
    return {1: "/run/seccomp-shim", 2: str(folder), 3: 1}


def _copies(node: Node, *names: str) -> None:
    for name in names:
        node.host.run(f"mkdir -p $(dirname {FOLDER}/{name}); cp {SOURCE} {FOLDER}/{name}")


def _contents(node: Node) -> dict[str, str]:
    lines = node.host.run(f"find {FOLDER} -type f -exec sha256sum {{}} +").stdout.splitlines()
    return {path: digest for digest, path in (line.split() for line in lines)}


def test_profiles_are_patched_and_given_back(bare: Node) -> None:
    """Those there are and that come are patched, kept at a roll-out, given back at the removal."""
    node = bare
    _copies(node, "a.json", "deep/b.json")
    before = _contents(node)
    mounts = [_affected(node)]
    with node.pod(SPEC, args=OFTEN, mounts=mounts) as pod:
        pod.wait_for("deep/b.json: patched")
        pod.wait_for("seccomp-shim: ready")
        assert pod.ready(PROBE) == (True, "")
        _copies(node, "c.json")
        pod.wait_for("c.json: patched")
        assert "the DaemonSet is still there" in pod.stop()
    patched = _contents(node)
    assert len(set(patched.values())) == 1
    assert not set(patched.values()) & set(before.values())
    with node.pod(SPEC, args=OFTEN, mounts=mounts) as pod:
        pod.wait_for("seccomp-shim: ready")
        node.server.remove(rights=False)
        assert "the DaemonSet was removed: rolled back" in pod.stop()
    assert set(_contents(node).values()) == set(before.values())


def test_the_pod_finds_out_what_the_kernel_does(bare: Node) -> None:
    """Told nothing it probes the kernel, and patches where that has the calls."""
    node = bare
    _copies(node, "a.json")
    before = _contents(node)
    with node.pod(SPEC) as pod:
        pod.wait_for("seccomp-shim: ready")
    has_the_calls = set(cache.states().values()) != {"absent"}
    assert (_contents(node) != before) == has_the_calls


def test_a_kernel_that_cannot_be_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a filter hides what the kernel does one line says what the pod needs.

    Only on a kernel that kills can that be had for real: others answer through any filter.
    """
    monkeypatch.setattr(cache, "states", lambda: {"uretprobe": "unknown", "uprobe": "unknown"})
    shutil.copy(SOURCE, tmp_path)
    with pytest.raises(ShimError, match="seccompProfile: Unconfined"):
        Profiles([str(tmp_path)], 1).step()
    assert (tmp_path / SOURCE.name).read_bytes() == SOURCE.read_bytes()
