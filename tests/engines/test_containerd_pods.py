"""A real containerd whose CRI service starts pods through the wrapper."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engines.registration import BIN
from shim.engines import cri as cri_service
from support import cri, engines, image
from support.host import throwaway
from vm import stacks

CHECKOUT = Path(__file__).parents[2]
EPERM, ENOSYS = 1, 38
CONFIG = """\
version = 2
root = "{0}/cri-root"
state = "{0}/cri-state"
[grpc]
  address = "{0}/cri.sock"
[ttrpc]
  address = "{0}/cri.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{1}"  # has sleep; nothing is pulled
  restrict_oom_score_adj = true
  stream_server_port = "0"
"""


@pytest.fixture(scope="module")
def node() -> Iterator[engines.Engine]:
    """Yield a containerd, on a host where our executables are installed."""
    with engines.containerd() as engine:
        engine.host.run(
            "mkdir -p /opt/seccomp-shim/bin /etc/seccomp-shim /var/log/seccomp-shim\n"
            "umask 022; echo test_syscall: 400 >/etc/seccomp-shim/config.yaml\n"
            f"cd {CHECKOUT}; {sys.executable} -c '\n"
            "from pathlib import Path\n"
            "from shim.engines.registration.hookfile import render_all\n"
            'render_all(Path("/opt/seccomp-shim/bin"))\'\n'
        )
        yield engine


def _verb(node: engines.Engine, *words: str) -> None:
    node.host.run(f"cd {CHECKOUT}; {sys.executable} -m shim {' '.join(words)}")


@contextmanager
def _service(
    node: engines.Engine, config: Path, program: str = "containerd"
) -> Iterator[cri.Runtime]:
    """Start one more containerd, for its CRI service."""
    socket = node.folder / "cri.sock"
    ctr = ["ctr", "--address", str(socket), "--namespace", "k8s.io"]
    with (node.folder / "cri.log").open("ab") as log:
        # nsenter, which is what we start, has it as a child: its pid is known in there only
        script = f"echo $$ >{node.folder}/cri.pid; exec {program} --config {config}"
        daemon = subprocess.Popen([*node.host.enter, "sh", "-c", script], stdout=log, stderr=log)
    try:
        while subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode:
            assert daemon.poll() is None, (node.folder / "cri.log").read_text()
            time.sleep(0.1)
        archive = node.folder / "image.tar"
        archive.write_bytes(cri.image_archive(image.archive(node.rootfs)))
        node.host.run(" ".join([*ctr, "image", "import", str(archive)]))
        with cri.service(socket, f"/{node.folder.name}") as runtime:
            yield runtime
    finally:
        node.host.run(f"kill $(cat {node.folder}/cri.pid)")
        daemon.wait()


def _calls(runtime: cri.Runtime, handler: str) -> dict[int, int]:
    with runtime.container(handler, image.CALLER, "400", "stay") as container:
        return image.outcomes(runtime.exec(container, image.CALLER, "400", "401"))


def test_ctr_needs_no_registration(node: engines.Engine) -> None:
    """With --runc-binary ctr starts a container through the wrapper; without it is denied."""
    words = ["--rootfs", "--seccomp", str(node.rootfs)]
    call = [image.CALLER, "400", "401"]
    assert node.calls("run", "--rm", *words, "before", *call) == {400: EPERM, 401: EPERM}
    binary = ["--runc-binary", f"{BIN}/seccomp-shim-runc"]
    after = node.calls("run", "--rm", *binary, *words, "after", *call)
    assert after == {400: ENOSYS, 401: EPERM}


def test_pods_of_the_handler_in_a_real_containerd(node: engines.Engine) -> None:
    """The CRI service starts pods of our handler through the wrapper, and others as before."""
    config = node.folder / "cri.toml"
    config.write_text(CONFIG.format(node.folder, cri.IMAGE))
    _verb(node, "install", "containerd", "--config", str(config))
    with _service(node, config) as runtime:
        assert _calls(runtime, "seccomp-shim") == {400: ENOSYS, 401: EPERM}
        assert _calls(runtime, "") == {400: EPERM, 401: EPERM}
    _verb(node, "uninstall", "containerd", "--config", str(config))
    assert config.read_text() == CONFIG.format(node.folder, cri.IMAGE)


def test_all_pods_where_ours_is_the_default(node: engines.Engine) -> None:
    """With --default pods that ask for no handler are started through the wrapper."""
    config = node.folder / "cri.toml"
    config.write_text(CONFIG.format(node.folder, cri.IMAGE))
    _verb(node, "install", "containerd", "--default", "--config", str(config))
    with _service(node, config) as runtime:
        assert _calls(runtime, "") == {400: ENOSYS, 401: EPERM}
        assert _calls(runtime, "runc") == {400: EPERM, 401: EPERM}
    _verb(node, "uninstall", "containerd", "--config", str(config))


NVIDIA = """#!/bin/sh
echo "$@" >>/var/log/nvidia
exec runc "$@"
"""
NVIDIAS = """\
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "nvidia"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
      BinaryName = "/usr/local/bin/nvidia-container-runtime"
"""


def _status(node: engines.Engine, config: Path) -> dict[str, Any]:
    words = f"status containerd --config {config} --json"
    done = node.host.run(f"cd {CHECKOUT}; {sys.executable} -m shim {words}", code=None)
    [found] = json.loads(done.stdout)["engines"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("words", [("--default",), ("--runtime", "nvidia")])
def test_pods_keep_the_runtime_that_was_the_default(
    node: engines.Engine, words: tuple[str, ...]
) -> None:
    """Where NVIDIA's runtime is the default it goes on being called, by the wrapper in front."""
    config = node.folder / "cri.toml"
    config.write_text(CONFIG.format(node.folder, cri.IMAGE) + NVIDIAS)
    program = "/usr/local/bin/nvidia-container-runtime"
    node.host.run(
        f"cat >{program} <<'END'\n{NVIDIA}END\nchmod 755 {program}; rm -f /var/log/nvidia"
    )
    _verb(node, "install", "containerd", *words, "--config", str(config))
    with _service(node, config) as runtime:
        assert _calls(runtime, "") == {400: ENOSYS, 401: EPERM}
    called = node.host.run("cat /var/log/nvidia").stdout
    assert {"create", "start", "exec"} <= set(called.split())
    _verb(node, "uninstall", "containerd", "--config", str(config))
    assert config.read_text() == CONFIG.format(node.folder, cri.IMAGE) + NVIDIAS


def test_status_knows_what_the_running_one_has_read(node: engines.Engine) -> None:
    """Status says when the running containerd has not read the file, or has what was taken out."""
    config = node.folder / "cri.toml"
    config.write_text(CONFIG.format(node.folder, cri.IMAGE))
    with _service(node, config):
        assert _status(node, config)["problems"] == []
        _verb(node, "install", "containerd", "--config", str(config))
        [problem] = _status(node, config)["problems"]
        assert problem.startswith("the running containerd has not read its files since")
    with _service(node, config) as runtime:
        told = _status(node, config)
        assert (told["problems"], told["known"], told["default"]) == ([], True, False)
        _verb(node, "install", "containerd", "--default", "--config", str(config))
        [problem] = _status(node, config)["problems"]
        assert problem.startswith("the running containerd has not read its files since")
        _refused(node, config, runtime)
        _verb(node, "uninstall", "containerd", "--config", str(config))
        told = _status(node, config)
        assert (told["registered"], told["in_use"]) == (False, True)
        assert told["problems"] == [
            "the running containerd has what was taken out until it is restarted"
        ]
    with _service(node, config):
        assert _status(node, config)["in_use"] is False


def test_pods_by_default_do_not_need_the_handler(node: engines.Engine) -> None:
    """Pods that asked for none outlive an uninstall and a restart; their program has to stay."""
    config = node.folder / "cri.toml"
    config.write_text(CONFIG.format(node.folder, cri.IMAGE))
    _verb(node, "install", "containerd", "--default", "--config", str(config))
    with _service(node, config) as runtime:
        sandbox, container = runtime.start("", image.CALLER, "400", "stay")
        words = f"uninstall containerd --config {config}"
        said = node.host.run(f"cd {CHECKOUT}; {sys.executable} -m shim {words}").stderr
        assert "2 running containers were started by it: its program must stay" in said
    with _service(node, config) as runtime:
        assert _status(node, config)["in_use"] is True
        assert image.outcomes(runtime.exec(container, image.CALLER, "400"))[400] == ENOSYS
        runtime.end(sandbox)
        assert _status(node, config)["in_use"] is False


def test_a_script_stays_while_containers_run_by_it(node: engines.Engine) -> None:
    """In front of a runtime of somebody's own we are a script: it goes once no container calls it.

    With it gone containerd could neither enter, stop nor remove them.
    """
    other = node.folder / "other"
    other.write_text('#!/bin/sh\nexec runc "$@"\n')
    other.chmod(0o755)
    config = node.folder / "cri.toml"
    table = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes'
    kind = 'runtime_type = "io.containerd.runc.v2"'
    config.write_text(
        f"{CONFIG.format(node.folder, cri.IMAGE)}{table}.runc]\n{kind}\n"
        f'{table}.other]\n{kind}\n{table}.other.options]\nBinaryName = "{other}"\n'
    )
    before = config.read_text()
    script = BIN / "seccomp-shim-containerd-other"
    _verb(node, "install", "containerd", "--runtime", "other", "--config", str(config))
    node.host.run(f"test -x {script}")
    with _service(node, config) as runtime:
        sandbox, container = runtime.start("other", image.CALLER, "400", "stay")
        words = f"uninstall containerd --config {config}"
        said = node.host.run(f"cd {CHECKOUT}; {sys.executable} -m shim {words}").stderr
        assert f"{script} stays, by which running containers were started" in said
        assert config.read_text() == before
        assert image.outcomes(runtime.exec(container, image.CALLER, "400"))[400] == ENOSYS
        runtime.end(sandbox)
    _verb(node, "uninstall", "containerd", "--config", str(config))
    node.host.run(f"test ! -e {script}")


def test_the_program_stays_while_containerd_needs_it(node: engines.Engine, tmp_path: Path) -> None:
    """install.sh waits for the registration, for the restart, and for containers started by it."""
    config = Path("/etc/containerd/config.toml")
    program = f'exec env PYTHONPATH={CHECKOUT} {sys.executable} -P -m shim "$@"'
    node.host.run(
        f"mkdir -p {config.parent}; cat >{config} <<'END'\n"
        f"{CONFIG.format(node.folder, cri.IMAGE)}END\n"
        f"touch {BIN.parent}/manifest; echo '#!/bin/sh\n{program}' >{BIN}/seccomp-shim\n"
        f"chmod +x {BIN}/seccomp-shim"
    )

    def removed(code: int = 2) -> str:
        with throwaway(tmp_path, node.host) as view:
            return view.run(f"{CHECKOUT}/install.sh --uninstall", code=code).stderr

    _verb(node, "install", "containerd", "--default")
    assert "containerd still uses it: run  seccomp-shim uninstall containerd" in removed()
    still = "containerd still has it in memory, or containers run that were started by it"
    with _service(node, config) as runtime:
        with runtime.container("seccomp-shim", image.CALLER, "400", "stay"):
            assert "containerd still uses it" in removed()
        sandbox, _ = runtime.start("", image.CALLER, "400", "stay")
        _verb(node, "uninstall", "containerd")
        assert still in removed()
    with _service(node, config) as runtime:
        assert still in removed()
        runtime.end(sandbox)
        removed(code=0)
    node.host.run(f"rm {config} {BIN.parent}/manifest {BIN}/seccomp-shim")


def _refused(node: engines.Engine, config: Path, runtime: cri.Runtime) -> None:
    """See that nothing is taken out while a pod of the handler runs."""
    before = config.read_text()
    with runtime.container("seccomp-shim", image.CALLER, "400", "stay"):
        words = f"uninstall containerd --config {config}"
        done = node.host.run(f"cd {CHECKOUT}; {sys.executable} -m shim {words}", code=2)
        assert "1 pod has the handler" in done.stderr
        assert "it stays until none is left: end them first, or give --force" in done.stderr
    assert config.read_text() == before


@pytest.mark.vm
def test_a_newer_one_tells_what_it_has_read(node: engines.Engine) -> None:
    """Containerd 2.x answers the same question in the same way."""
    [stack] = [each for each in stacks.STACKS if each.name == "sid"]
    config = node.folder / "cri.toml"
    config.write_text(CONFIG.format(node.folder, cri.IMAGE) + NVIDIAS)
    with _service(node, config, str(stacks.ready(stack).root / "usr/bin/containerd")):
        found = cri_service.config(str(node.folder / "cri.sock"))
    assert found
    assert found["containerd"]["defaultRuntimeName"] == "nvidia"
    options = found["containerd"]["runtimes"]["nvidia"]["options"]
    assert options["BinaryName"] == "/usr/local/bin/nvidia-container-runtime"
