"""Kubernetes: the kubelet's directory of profiles, and what manifests say of it."""

import os
import re
from collections.abc import Iterator

from shim.discovery.collector import Collector, Lines
from shim.profile.yamltext.nodes import Node

_ROOTS = (
    "/var/lib/kubelet/seccomp",
    "/var/snap/microk8s/common/var/lib/kubelet/seccomp",
    "/var/lib/k0s/kubelet/seccomp",
)
_MANIFESTS = (
    "/etc/kubernetes",
    "/var/lib/rancher/k3s/server/manifests",
    "/var/lib/rancher/rke2/server/manifests",
)
_OPERATOR = "security-profiles-operator writes it: change its SeccompProfile"
_ANNOTATION = "seccomp.security.alpha.kubernetes.io"


def collect(collector: Collector) -> None:
    """Look into the kubelet's directories, and at the manifests of a node."""
    for root in _ROOTS:
        for path in collector.files(root):
            below = os.path.relpath(path, root)
            kept = _OPERATOR if below.startswith("operator/") else ""
            collector.candidate(path, own=path.endswith(".json"), kept=kept)
    for directory in _MANIFESTS:
        for path in collector.files(directory):
            if path.endswith((".yaml", ".yml", ".json")):
                manifest(collector, path)
                collector.candidate(path)


def manifest(collector: Collector, path: str) -> None:
    """Note the profiles that a manifest asks the kubelet for; other files are passed over."""
    text = collector.text(path)
    if text is None or not re.search(rf"localhostProfile|{_ANNOTATION}", text):
        return
    lines = Lines(text)
    for root in collector.yaml(path, text):
        who = _title(root)
        for name, node in _asked(root):
            collector.used(f"{_ROOTS[0]}/{name}", who, path, lines.at(node.start))


def _asked(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield each profile that a manifest names, relative to the kubelet's directory."""
    for item in node.items:
        yield from _asked(item)
    for key, value in node.pairs:
        if key.value == "localhostProfile" and isinstance(value.value, str):
            yield value.value, value
        elif _ANNOTATION in str(key.value) and isinstance(value.value, str):
            for each in value.value.split(","):
                if each.strip().startswith("localhost/"):
                    yield each.strip().removeprefix("localhost/"), value
        else:
            yield from _asked(value)


def _title(root: Node) -> str:
    kind, name = root.get("kind"), root.at(["metadata", "name"])
    words = [str(each.value) for each in (kind, name) if each and each.kind == "scalar"]
    return " ".join(words) or "manifest"
