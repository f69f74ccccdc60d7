"""The manifests, as kubectl renders them, against Kubernetes' own schemas."""

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate
import pytest

from node import apiserver
from node.manifests import ALL, KUBERNETES, handler, kind, rendered, template
from shim import __version__
from shim.engines.containerd import config_file

# From the oldest that knows recursiveReadOnly to the newest that there are schemas of.
VERSIONS = [
    each
    for each in sorted({*kubernetes_validate.utils.all_versions()}, key=lambda v: v.split("."))
    if int(each.split(".")[1]) >= 30
]


@pytest.fixture(scope="module", params=ALL)
def documents(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Return the documents of each kustomization."""
    return rendered(request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_schemas(documents: list[dict[str, Any]], version: str) -> None:
    """Every document is valid, without any key that this version of Kubernetes does not know."""
    assert len(VERSIONS) >= 3
    for each in documents:
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "template", "spec", "nodeSelektor"), {}),
        (("spec", "template", "spec", "containers", 0, "securityContext", "capabilties"), {}),
        (("spec", "template", "spec", "containers", 0, "args"), "install"),
        (("spec", "template", "spec", "volumes", 0, "name"), None),
        (("spec", "selector"), None),
    ],
)
def test_schemas_find_mistakes(path: tuple[str | int, ...], value: object) -> None:
    """A misspelt key, a wrong type or a missing value is found: the validation can fail."""
    broken = copy.deepcopy(kind(rendered("base"), "DaemonSet"))
    where: Any = broken
    for each in path[:-1]:
        where = where[each]
    if value is None:
        del where[path[-1]]
    else:
        where[path[-1]] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", ALL)
def test_pods_have_few_rights(name: str) -> None:
    """No pod is privileged, shares a namespace of the node, or has more than one capability."""
    spec = template(name)
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
    [container] = spec["containers"]
    confined = container["securityContext"]
    assert "privileged" not in confined
    assert confined["allowPrivilegeEscalation"] is False
    assert confined["readOnlyRootFilesystem"] is True
    added = confined["capabilities"].pop("add", [])
    assert confined["capabilities"] == {"drop": ["ALL"]}
    assert added == ([] if name == "overlays/profiles" else ["SYS_CHROOT"])
    profile = "Unconfined" if name == "overlays/profiles" else "RuntimeDefault"
    assert spec["securityContext"]["seccompProfile"] == {"type": profile}


@pytest.mark.parametrize("name", ALL)
def test_what_is_mounted(name: str) -> None:
    """The node's root is read-only and comes first; what is written to are named directories."""
    spec = template(name)
    places = {each["name"]: each.get("hostPath", {}).get("path") for each in spec["volumes"]}
    mounts = spec["containers"][0]["volumeMounts"]
    assert places.keys() == {each["name"] for each in mounts}
    written = [each["mountPath"] for each in mounts if not each.get("readOnly")]
    top = [each for each in mounts if places[each["name"]] == "/"]
    assert "/" not in written
    if name == "overlays/profiles":
        assert top == []
        return
    # CRI-O makes no container with such a mount: it has directories above its storage as rslave.
    recursive = None if name.endswith("crio") else "IfPossible"
    assert [each.get("recursiveReadOnly") for each in top] == [recursive]
    paths = [each["mountPath"] for each in mounts]
    assert all(paths.index("/node") < paths.index(each) for each in written if each != "/tmp")
    for each in mounts:
        if places[each["name"]] is not None:
            assert each["mountPath"].rstrip("/") == f"/node{places[each['name']]}".rstrip("/")


def test_the_pods_own_runtime() -> None:
    """Where every pod may be started by ours, the node's own is not: a removal waits for those."""
    own = {name: handler(name) for name in ALL if handler(name)}
    assert own == {
        "overlays/default-runtime": "runc",
        "overlays/remove": "runc",
        "overlays/remove-crio": "crun",
    }
    for name in ("overlays/remove", "overlays/remove-crio"):
        engine = "crio" if name.endswith("crio") else "containerd"
        assert template(name)["containers"][0]["args"] == ["remove", engine]
        mounted = {
            each["hostPath"]["path"] for each in template(name)["volumes"] if "hostPath" in each
        }
        assert f"/etc/{engine}" in mounted
        classes = [e["metadata"]["name"] for e in rendered(name) if e["kind"] == "RuntimeClass"]
        assert classes == ["seccomp-shim-node"]


def test_what_the_api_is_asked_is_allowed() -> None:
    """The pod may get and watch the one DaemonSet that it is of, and nothing else."""
    documents = rendered("base")
    [rule] = kind(documents, "Role")["rules"]
    daemonset = kind(documents, "DaemonSet")
    [variable] = template("base")["containers"][0]["env"]
    name = daemonset["metadata"]["name"]
    assert variable == {"name": "DAEMONSET", "value": name}
    assert rule == {
        "apiGroups": ["apps"],
        "resources": ["daemonsets"],
        "resourceNames": [name],
        "verbs": ["get", "watch"],
    }
    assert (name, daemonset["metadata"]["namespace"]) == (apiserver.NAME, apiserver.NAMESPACE)
    assert not [each for each in documents if each["kind"].startswith("Cluster")]


def test_names_agree() -> None:
    """Class, handler, labels and the image's tag are those of the rest of the project."""
    documents = rendered("base")
    runtime_class = kind(documents, "RuntimeClass")
    assert runtime_class["handler"] == config_file.NAME
    selector = template("base")["nodeSelector"]
    assert runtime_class["scheduling"]["nodeSelector"].items() <= selector.items()
    assert set(_values(documents, "image")) == {f"seccomp-shim-node:{__version__}"}
    told = (KUBERNETES / "README.md").read_text() + (KUBERNETES / "build").read_text()
    assert set(re.findall(r"seccomp-shim-node:([\d.]+)", told)) == {__version__}


def _values(document: object, key: str) -> Iterator[str]:
    """Yield the values of every ``key``, at any depth."""
    if isinstance(document, Mapping):
        yield from (value for name, value in document.items() if name == key)
        for each in document.values():
            yield from _values(each, key)
    elif isinstance(document, list):
        for each in document:
            yield from _values(each, key)
