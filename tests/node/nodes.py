"""A node without a cluster: a containerd that runs pods of a manifest as a kubelet would have it.

The node is a view of this host; containerd has its usual places there. What differs from a real
node: pods have the host's network, for there is no CNI plugin, and nobody restarts them.
"""

import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node.apiserver import ApiServer
from support import cri, engines, image, need

CONFIG = "/etc/containerd/config.toml"
_TEXT = """\
# the admin's own
version = 2
root = "{folder}/cri-root"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"  # has sleep; nothing is pulled
  restrict_oom_score_adj = true
  stream_server_port = "0"
"""
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_SECONDS = 120
_PROFILES = {"RuntimeDefault": 0, "Unconfined": 1}


class Pod:
    """A pod of a manifest's template; its container runs from ``start`` to ``stop``."""

    def __init__(self, node: "Node", sandbox: str, container: str, log: Path) -> None:
        self._node = node
        self._sandbox = sandbox
        self._container = container
        self._log = log
        self._removed = False

    def said(self) -> str:
        """Return what it has said so far."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return "\n".join(line.split(" ", 3)[3] for line in lines)

    def wait_for(self, text: str) -> None:
        """Wait until it has said ``text``."""
        deadline = time.monotonic() + _SECONDS
        while text not in self.said():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def ready(self, probe: Mapping[str, Any]) -> tuple[bool, str]:
        """Ask the readiness probe; give what it said, too."""
        return self.run(*probe["exec"]["command"])

    def run(self, *command: str) -> tuple[bool, str]:
        """Run a command in the container; tell whether it succeeded, and what it said."""
        answer = self._node.runtime.call(
            "ExecSync", {1: self._container, 2: list(command), 3: _SECONDS}
        )
        said = b"".join(each for each in (answer.get(1), answer.get(2)) if isinstance(each, bytes))
        return answer.get(3, 0) == 0, said.decode()

    def stop(self) -> str:
        """End it as a kubelet does, with time to clean up; give all that it said."""
        self._node.runtime.call("StopContainer", {1: self._container, 2: _SECONDS})
        self.remove()
        return self.said()

    def remove(self) -> None:
        """Remove it unless it is, at once if it is still running."""
        if self._removed:
            return
        self._removed = True
        self._node.runtime.call("StopPodSandbox", {1: self._sandbox})
        self._node.runtime.call("RemovePodSandbox", {1: self._sandbox})


class Node:
    """The node; ``server`` is what its pods ask."""

    def __init__(self, engine: engines.Engine, server: ApiServer, archive: Path) -> None:
        self.host = engine.host
        self.folder = engine.folder
        self.server = server
        self.text = _TEXT.format(folder=engine.folder, image=cri.IMAGE)
        self.runtime: cri.Runtime
        self._archive = archive
        self._daemon: subprocess.Popen[bytes]
        # At its usual place, but on a file system that can be the lower one of an overlay.
        (engine.folder / "cri-state").mkdir()
        self.host.run(
            f"mkdir -p /etc/containerd /run/containerd /etc/seccomp-shim\n"
            f"mount --bind {engine.folder}/cri-state /run/containerd\n"
            f"cat >{CONFIG} <<'END'\n{self.text}END\n"
            "echo test_syscall: 400 >/etc/seccomp-shim/config.yaml"
        )

    def start(self) -> None:
        """Start containerd; the images are there."""
        script = f"echo $$ >{self.folder}/cri.pid; exec containerd"
        with (self.folder / "cri.log").open("ab") as log:
            command = [*self.host.enter, "sh", "-c", script]
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log)
        while self.host.run("ctr version", code=None).returncode:
            assert self._daemon.poll() is None, (self.folder / "cri.log").read_text()
            time.sleep(0.1)

    def load(self, rootfs: Path) -> None:
        """Bring the images."""
        (self.folder / "image.tar").write_bytes(cri.image_archive(image.archive(rootfs)))
        for file in (self.folder / "image.tar", self._archive):
            self.host.run(f"ctr --namespace k8s.io image import {file}")

    def stop(self) -> None:
        """Stop containerd; the containers go on."""
        self.host.run(f"kill $(cat {self.folder}/cri.pid)")
        self._daemon.wait(_SECONDS)

    def restart(self) -> None:
        """Do what ``systemctl restart containerd`` does."""
        self.stop()
        self.start()
        self.runtime.wait()

    def files(self) -> dict[str, str]:
        """Return what a pod might change on the node: contents, and where links lead; no logs."""
        folders = "/etc /opt/seccomp-shim /var/lib/seccomp-shim /run/seccomp-shim"
        find = (
            f"find {folders} -type f -exec sha256sum {{}} + 2>/dev/null\n"
            f"find {folders} /usr/local/bin -type l -printf '%l %p\\n' 2>/dev/null || true"
        )
        lines = self.host.run(find).stdout.splitlines()
        return {path: what for what, path in (line.split(None, 1) for line in lines)}

    @contextmanager
    def pod(self, spec: Mapping[str, Any], **changes: Any) -> Iterator[Pod]:
        """Run a pod of ``spec``, by the handler ``handler`` if one is given.

        Other ``changes`` are keys of its container, or ``mounts`` to add.
        """
        pod = self._made(spec, changes)
        try:
            yield pod
        finally:
            pod.remove()

    def _made(self, spec: Mapping[str, Any], changes: dict[str, Any]) -> Pod:
        name = f"pod-{uuid.uuid4().hex[:8]}"
        place = self.folder / name
        place.mkdir()
        mounts, handler = changes.pop("mounts", []), changes.pop("handler", "")
        container = {**spec["containers"][0], **changes}
        confined = {**spec["securityContext"], **container["securityContext"]}
        security = self._security(confined)
        network = security[3]
        sandbox_config = {
            1: {1: name, 2: name, 3: "seccomp-shim"},
            3: str(place),
            8: {1: f"/{self.folder.name}", 2: {1: network, 9: security[15]}},
        }
        environment = {each["name"]: each["value"] for each in container["env"]}
        environment |= self.server.environment
        config = {
            1: {1: container["name"]},
            2: {1: container["image"]},
            4: list(container["args"]),
            6: [{1: name, 2: value} for name, value in environment.items()],
            7: [*self._mounts(spec, container, place), *mounts],
            11: "log",
            15: {2: security},
        }
        call = self.runtime.call
        sandbox = _text(call("RunPodSandbox", {1: sandbox_config, 2: handler})[1])
        made = _text(call("CreateContainer", {1: sandbox, 2: config, 3: sandbox_config})[1])
        call("StartContainer", {1: made})
        return Pod(self, sandbox, made, place / "log")

    def _security(self, confined: Mapping[str, Any]) -> dict[int, Any]:
        """Return a LinuxContainerSecurityContext as the kubelet makes it."""
        capabilities = confined.get("capabilities", {})
        return {
            1: {1: capabilities.get("add", []), 2: capabilities.get("drop", [])},
            3: cri.HOST_NETWORK,
            5: {1: confined["runAsUser"]},
            12: {1: confined["runAsGroup"]},
            7: int(confined["readOnlyRootFilesystem"]),
            11: int(not confined["allowPrivilegeEscalation"]),
            15: {1: _PROFILES[confined["seccompProfile"]["type"]]},
        }

    def _mounts(
        self, spec: Mapping[str, Any], container: Mapping[str, Any], place: Path
    ) -> Iterator[dict[int, Any]]:
        volumes = {each["name"]: each for each in spec["volumes"]}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "emptyDir" in volume:
                source = place / mount["name"]
                source.mkdir(exist_ok=True)
                source.chmod(0o1777)
            else:
                source = Path(volume["hostPath"]["path"])
                if volume["hostPath"]["type"] == "DirectoryOrCreate":
                    self.host.run(f"mkdir -p {source}")
            yield {1: mount["mountPath"], 2: str(source), 3: int(mount.get("readOnly", False))}
        if spec["automountServiceAccountToken"]:
            yield {1: _ACCOUNT, 2: str(self.server.account), 3: 1}


@contextmanager
def node(server: ApiServer, archive: Path) -> Iterator[Node]:
    """Yield a node whose containerd runs, with the image in ``archive``."""
    need.program("containerd")
    with engines.containerd() as engine:
        found = Node(engine, server, archive)
        found.start()
        try:
            found.load(engine.rootfs)
            socket = engine.folder / "cri-state/containerd.sock"
            with cri.service(socket, f"/{engine.folder.name}") as found.runtime:
                yield found
        finally:
            found.stop()


def _text(value: bytes | int) -> str:
    assert isinstance(value, bytes)
    return value.decode()
