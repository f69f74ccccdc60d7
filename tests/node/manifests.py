"""What is in deploy/kubernetes, as kubectl renders it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from support import need
from support.checkout import CHECKOUT

KUBERNETES = CHECKOUT / "deploy/kubernetes"
ALL = ("base", *(f"overlays/{each.name}" for each in sorted((KUBERNETES / "overlays").iterdir())))


def rendered(name: str) -> list[dict[str, Any]]:
    """Return the documents of a kustomization, in their order."""
    ours = Path(sys.executable).parent / "kubectl"  # of the environment, where a wheel brought one
    kubectl = str(ours) if ours.exists() else need.program("kubectl")
    command = [kubectl, "kustomize", str(KUBERNETES / name)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


def kind(documents: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the only document of a kind."""
    [found] = [each for each in documents if each["kind"] == name]
    return found


def template(name: str) -> dict[str, Any]:
    """Return what the pods of a kustomization's DaemonSet are like: the pod's ``spec``."""
    spec: dict[str, Any] = kind(rendered(name), "DaemonSet")["spec"]["template"]["spec"]
    return spec


def handler(name: str) -> str:
    """Return the handler that the pods of a kustomization ask for by a class of its own."""
    documents = rendered(name)
    wanted = kind(documents, "DaemonSet")["spec"]["template"]["spec"].get("runtimeClassName")
    if wanted is None:
        return ""
    [found] = [
        each["handler"]
        for each in documents
        if each["kind"] == "RuntimeClass" and each["metadata"]["name"] == wanted
    ]
    return str(found)
