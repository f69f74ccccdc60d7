"""The node's pod, run by a real containerd with the rights that its manifest has."""

import tomllib
from typing import Any

import pytest

from node.manifests import handler, template
from node.nodes import CONFIG, Node, Pod
from shim.engines.containerd import config_file
from support import cri, image
from support.containers import ENOSYS, EPERM, TEST_SYSCALL

BASE = template("base")
PROBE = BASE["containers"][0]["readinessProbe"]
HANDLER = "seccomp-shim"
RESTART = "restart it on this node"
CALL = [image.CALLER, str(TEST_SYSCALL)]
LOG = "/var/log/seccomp-shim/audit.jsonl"


def outcome(runtime: cri.Runtime, handler: str) -> int:
    """Return what the test syscall ends with in a pod of a handler."""
    with runtime.container(handler, *CALL, "stay") as container:
        return image.outcomes(runtime.exec(container, *CALL))[TEST_SYSCALL]


def installed(node: Node, pod: Pod) -> None:
    """Wait for the installation, and restart containerd as the pod says."""
    pod.wait_for(RESTART)
    node.restart()
    pod.wait_for("seccomp-shim: ready")


def handlers(node: Node) -> set[str]:
    """Return the handlers in containerd's configuration."""
    document: dict[str, Any] = tomllib.loads(node.host.run(f"cat {CONFIG}").stdout)
    cri_table = document["plugins"][config_file.CRI[2]].get("containerd", {})
    return set(cri_table.get("runtimes", {}))


def test_from_nothing_to_nothing(bare: Node) -> None:
    """Installed, ready once containerd knows it, kept at a roll-out, rolled back at the removal."""
    node = bare
    before = node.files()
    assert outcome(node.runtime, "") == EPERM
    with node.runtime.container("", *CALL, "stay") as running, node.pod(BASE) as first:
        first.wait_for(RESTART)
        ready, why = first.ready(PROBE)
        assert not ready
        assert RESTART in why
        assert handlers(node) == {"runc", HANDLER}
        # The node's own file system is read-only. Its other ones (/etc is one here) are so from
        # containerd 2.0 on: 1.x does not know recursiveReadOnly.
        for path in ("/node/usr/x", "/node/x", "/x"):
            done, said = first.run("python3", "-c", f"open({path!r}, 'w')")
            assert not done
            assert "Read-only file system" in said
        node.restart()
        first.wait_for("seccomp-shim: ready")
        assert first.ready(PROBE) == (True, "")
        # No container was ended for that.
        assert image.outcomes(node.runtime.exec(running, *CALL))[TEST_SYSCALL] == EPERM
        assert outcome(node.runtime, HANDLER) == ENOSYS
        assert outcome(node.runtime, "") == EPERM
        after = node.files()
        assert "the DaemonSet is still there" in first.stop()
    assert node.files() == after
    with node.pod(BASE) as second:
        second.wait_for("seccomp-shim: ready")
        assert RESTART not in second.said()
        assert node.server.watched.wait(60)
        with node.runtime.container(HANDLER, *CALL, "stay") as container:
            node.server.remove(rights=True)
            said = second.stop()
            assert "the DaemonSet was removed: rolled back, but for what is left" in said
            assert "1 pod has the handler" in said
            assert handlers(node) == {"runc", HANDLER}
            # What runs goes on, also once containerd was restarted, to the end.
            node.restart()
            assert image.outcomes(node.runtime.exec(container, *CALL))[TEST_SYSCALL] == ENOSYS
    removal = template("overlays/remove")
    with node.pod(removal, handler=handler("overlays/remove")) as third:
        third.wait_for("has the handler in memory")
        assert not third.ready(PROBE)[0]
        node.restart()
        third.wait_for("seccomp-shim: ready")
    assert node.files() == before
    events = node.host.run(f"cat {LOG}").stdout
    for event in ("install", "node-kept", "node-removal", "uninstall"):
        assert f'"event": "{event}"' in events


def test_in_doubt_the_node_stays_as_it_is(bare: Node) -> None:
    """Where the API server cannot be asked, or does not answer, nothing is rolled back."""
    node = bare
    node.server.refuses = True
    with node.pod(BASE) as pod:
        pod.wait_for(RESTART)
        after = node.files()
        assert "it cannot be told whether the DaemonSet was removed" in pod.stop()
    node.server.server_close()
    with node.pod(BASE) as pod:
        pod.wait_for(RESTART)
        assert "it cannot be told whether the DaemonSet was removed" in pod.stop()
    assert node.files() == after
    assert handlers(node) == {"runc", HANDLER}


def test_removed_before_containerd_has_read_it(bare: Node) -> None:
    """Where the running containerd never knew the handler, all is gone at once."""
    node = bare
    before = node.files()
    with node.pod(BASE) as pod:
        pod.wait_for(RESTART)
        node.server.remove(rights=False)
        said = pod.stop()
    assert "rolled back" in said
    assert "left:" not in said
    assert node.files() == before


def test_all_pods_by_default(bare: Node) -> None:
    """With default-runtime pods that ask for nothing are covered, once that was read as well."""
    with bare.pod(BASE) as pod:
        installed(bare, pod)
        pod.stop()
    assert outcome(bare.runtime, "") == EPERM
    name = "overlays/default-runtime"
    with bare.pod(template(name), handler=handler(name)) as pod:
        installed(bare, pod)
        assert outcome(bare.runtime, "") == ENOSYS
        pod.stop()
    name = "overlays/remove"
    with bare.pod(template(name), handler=handler(name)) as removal:
        removal.wait_for("has the handler in memory")
        # Its own pod is none of those to be waited for.
        assert "started by it" not in removal.said()
        bare.restart()
        removal.wait_for("seccomp-shim: ready")
    assert outcome(bare.runtime, "") == EPERM


@pytest.mark.parametrize(
    "capability", BASE["containers"][0]["securityContext"]["capabilities"]["add"]
)
def test_each_capability_is_needed(bare: Node, capability: str) -> None:
    """Without it the pod says in one line what fails, and does nothing to the node."""
    before = bare.files()
    confined = BASE["containers"][0]["securityContext"]
    left = [each for each in confined["capabilities"]["add"] if each != capability]
    without = {**confined, "capabilities": {**confined["capabilities"], "add": left}}
    with bare.pod(BASE, securityContext=without) as pod:
        pod.wait_for("Operation not permitted")
        assert pod.said().count("\n") == 0
        assert not pod.ready(PROBE)[0]
    assert bare.files() == before


def test_a_node_without_python(bare: Node) -> None:
    """Where the node has no suitable Python one line says so, and nothing is done to the node."""
    before = bare.files()
    bare.host.run("mount --bind /dev/null $(readlink -e /usr/bin/python3)")
    try:
        with bare.pod(BASE) as pod:
            pod.wait_for("no Python >= 3.11")
            assert pod.said().count("\n") == 0
            assert not pod.ready(PROBE)[0]
    finally:
        bare.host.run("umount $(readlink -e /usr/bin/python3)")
    assert bare.files() == before
