"""What a handler of CRI-O's is copied with, which file wins, and what the running one knows.

CRI-O is in no Debian: its files, its ``config --default`` and its socket are made here, as the
sources of 1.37 have them.
"""

import contextlib
import http.server
import json
import socketserver
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import registration
from engines.registration import BIN, install, uninstall
from shim.engines import service
from shim.engines.crio import config
from shim.engines.registration import Host, executable
from shim.errors import ShimError

DROP_IN = "etc/crio/crio.conf.d/99-seccomp-shim.conf"
CRUN = "/usr/libexec/crio/crun"
SCRIPT = f"{BIN}/seccomp-shim-crio-crun"
PLATFORMS = """\
[crio.runtime.runtimes.crun]
runtime_path = "/usr/bin/crun-not-used"
platform_runtime_paths = {"linux/amd64" = "/usr/libexec/crio/crun"}
inherit_default_runtime = true
[crio.runtime.runtimes.fast]
inherit_default_runtime = true
allowed_annotations = ["io.kubernetes.cri-o.Devices"]
"""
# As pkg/config/template.go prints it.
DEFAULTS = """\
cat <<'END'
# [crio.runtime.runtimes.crun]
# runtime_path = ""
# runtime_type = "oci"
# runtime_root = "/run/crun"
# inherit_default_runtime = false
# runtime_config_path = ""
# container_min_memory = "500KiB"
# monitor_path = ""
# monitor_cgroup = "system.slice"
# monitor_exec_cgroup = ""
# monitor_env = [
#\t"PATH=/usr/bin:/bin",
# ]
# allowed_annotations = [
#\t"io.containers.trace-syscall",
#\t"devices.crio.io",
# ]
# privileged_without_host_devices = false


# The workloads table
# [crio.runtime.workloads.workload-type]
# allowed_annotations = ["not.this"]
END
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a host that has crun where CRI-O's packages have it."""
    registration.program(tmp_path / "usr/libexec/crio", "crun", "exit 1")
    (tmp_path / "etc/crio/crio.conf.d").mkdir(parents=True)
    return registration.host(tmp_path, str(tmp_path / "bin"))


def written(host: Host, name: str = "seccomp-shim", file: str = DROP_IN) -> dict[str, Any]:
    """Return a handler of our file."""
    document = tomllib.loads(host.path(file).read_text())
    handler = document["crio"]["runtime"]["runtimes"][name]
    assert isinstance(handler, dict)
    return handler


def test_a_handler_that_is_built_in_is_copied_with_all_it_has(host: Host) -> None:
    """What no file shows is asked of CRI-O: the least memory and the annotations are kept."""
    registration.program(host.root / "bin", "crio", DEFAULTS)
    install("crio", host, "--default")
    assert written(host) == {
        "runtime_root": "/run/crun",
        "container_min_memory": "500KiB",
        "monitor_cgroup": "system.slice",
        "monitor_env": ["PATH=/usr/bin:/bin"],
        "allowed_annotations": ["io.containers.trace-syscall", "devices.crio.io"],
        "runtime_path": SCRIPT,
        "runtime_type": "oci",
    }
    assert executable.real_of(host.path(SCRIPT)) == CRUN


def test_without_a_crio_to_ask_the_documented_values_hold(host: Host) -> None:
    """An 8 MiB pod is not refused by our handler where CRI-O cannot be asked, either."""
    install("crio", host)
    assert written(host)["container_min_memory"] == "500KiB"
    assert "io.containers.trace-syscall" in written(host)["allowed_annotations"]


def test_nothing_leads_past_us(host: Host) -> None:
    """A path by platform and an inherited one would have CRI-O call another program: left out."""
    host.path("/etc/crio/crio.conf").write_text(PLATFORMS)
    install("crio", host, "--default")
    assert written(host) == {"runtime_path": SCRIPT, "runtime_type": "oci"}
    assert executable.real_of(host.path(SCRIPT)) == CRUN


def test_in_front_of_one_handler(host: Host) -> None:
    """With --runtime a handler calls the wrapper under its own name, what it inherits resolved."""
    host.path("/etc/crio/crio.conf").write_text(PLATFORMS)
    before = registration.files(host.root / "etc")
    install("crio", host, "--runtime", "fast")
    script = f"{BIN}/seccomp-shim-crio-fast"
    assert written(host, "fast") == {
        "allowed_annotations": ["io.kubernetes.cri-o.Devices"],
        "runtime_path": script,
        "runtime_type": "oci",
    }
    assert executable.real_of(host.path(script)) == CRUN
    assert registration.status("crio", host)["problems"] == []
    install("crio", host, "--default")
    assert written(host, "fast")["runtime_path"] == script
    assert written(host)["runtime_path"] == SCRIPT
    uninstall("crio", host)
    assert registration.files(host.root / "etc") == before
    assert not host.path(script).exists()


@pytest.mark.parametrize("name", ["kata", "none"])
def test_what_cannot_be_stood_in_front_of_is_refused(host: Host, name: str) -> None:
    """A handler of a virtual machine, or none, is refused and nothing is written."""
    kata = '[crio.runtime.runtimes.kata]\nruntime_type = "vm"\nruntime_path = "/x"\n'
    host.path("/etc/crio/crio.conf").write_text(kata)
    before = registration.files(host.root)
    with pytest.raises(ShimError, match=f"handler {name}"):
        install("crio", host, "--runtime", name)
    assert registration.files(host.root) == before


@pytest.mark.parametrize(
    ("later", "place"),
    [
        ("99-zmine.conf", "zz-seccomp-shim.conf"),
        ("sub/10-mine", DROP_IN.rpartition("/")[2]),  # before: "9" sorts before "s"
        ("99-directory/mine", DROP_IN.rpartition("/")[2]),
        ("99-z/mine.toml", "zz-seccomp-shim.conf"),
    ],
)
def test_another_file_names_the_default(host: Host, later: str, place: str) -> None:
    """CRI-O reads subdirectories as well; ours has a name that is read behind all others."""
    mine = host.path(f"/etc/crio/crio.conf.d/{later}")
    mine.parent.mkdir(exist_ok=True)
    mine.write_text('[crio.runtime]\ndefault_runtime = "crun"\n')
    if later.startswith("sub"):
        place = "zz-seccomp-shim.conf"
    install("crio", host, "--default")
    assert host.path(f"/etc/crio/crio.conf.d/{place}").exists()
    assert registration.status("crio", host)["problems"] == []
    assert registration.status("crio", host)["default"] is True


def test_what_cannot_be_outdone_is_refused(host: Host) -> None:
    """A file that is read behind any of ours is named, and nothing is written."""
    host.path("/etc/crio/crio.conf.d/zzz").write_text('[crio.runtime]\ndefault_runtime = "crun"\n')
    before = registration.files(host.root)
    with pytest.raises(ShimError, match=r"crio.conf.d/zzz: default_runtime is something else"):
        install("crio", host, "--default")
    assert registration.files(host.root) == before


def test_an_overruling_file_is_noticed(host: Host) -> None:
    """Status calls for attention where a later file names another default."""
    install("crio", host, "--default")
    host.path("/etc/crio/crio.conf.d/zzz").write_text('[crio.runtime]\ndefault_runtime = "crun"\n')
    told = registration.status("crio", host)
    [problem] = told["problems"]
    assert "crio.conf.d/zzz: default_runtime" in problem
    assert told["default"] is False


@contextlib.contextmanager
def running(host: Host) -> Iterator[list[str]]:
    """Have a CRI-O answer for its configuration; gives the text of it, to be set."""
    said = [""]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer as server/inspect.go does."""
            data = said[0].encode() if self.path == "/config" else b""
            self.send_response(200 if data else 404)
            self.send_header("Content-Type", "application/toml")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

        def address_string(self) -> str:
            """Say something: a UNIX socket has no address."""
            return "client"

    socket = host.path("/var/run/crio/crio.sock")
    socket.parent.mkdir(parents=True)
    with socketserver.ThreadingUnixStreamServer(str(socket), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield said
        finally:
            server.shutdown()
            thread.join()


def test_status_knows_what_the_running_one_has_read(host: Host) -> None:
    """Status says where the running CRI-O has not read our file, or has what was taken out."""
    stock = '[crio.runtime]\ndefault_runtime = "crun"\n'
    with running(host) as said:
        said[0] = stock
        assert registration.status("crio", host)["problems"] == []
        install("crio", host, "--default")
        [problem] = registration.status("crio", host)["problems"]
        assert problem.startswith("the running CRI-O has not read its files since")
        said[0] = host.path(DROP_IN).read_text()
        told = registration.status("crio", host)
        assert (told["problems"], told["known"]) == ([], True)
        uninstall("crio", host)
        told = registration.status("crio", host)
        assert told["problems"] == [
            "the running CRI-O has what was taken out until it is restarted"
        ]
        assert told["in_use"] is True
        said[0] = stock
        assert registration.status("crio", host)["in_use"] is False


def _conmon(host: Host) -> Path:
    """Have a container's monitor run that was told of our program."""
    words = ["/usr/libexec/crio/conmon", "-b", "/x", "-c", "aaaa", "-r", SCRIPT, "--syslog"]
    file = host.path("/proc/7/cmdline")
    file.parent.mkdir(parents=True)
    file.write_text("\0".join(words) + "\0")
    file.with_name("status").write_text("Uid:\t0\t0\t0\t0\nNSpid:\t7\n")
    return file


def test_podmans_containers_are_not_its_own(host: Host) -> None:
    """They have the same monitor, and do not need the handler."""
    file = _conmon(host)
    assert config.started(host) == {"aaaa": SCRIPT}
    file.write_text(file.read_text() + "--exit-command\0/usr/bin/podman\0")
    assert config.started(host) == {}


@pytest.mark.parametrize(
    "status",
    ["Uid:\t1000\t1000\t1000\t1000\nNSpid:\t7\n", "Uid:\t0\t0\t0\t0\nNSpid:\t7\t1\n"],
)
def test_a_users_or_a_containers_process_is_no_monitor(host: Host, status: str) -> None:
    """Whatever it calls itself, nothing is kept for it."""
    _conmon(host).with_name("status").write_text(status)
    assert config.started(host) == {}


def _kept(host: Host, handler: str = "seccomp-shim") -> Path:
    """Have a pod whose containers have ended, of a handler."""
    config = {"annotations": {"io.kubernetes.cri-o.RuntimeHandler": handler}}
    folder = host.path("/run/containers/storage/overlay-containers/aaaa/userdata")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"


@pytest.mark.parametrize("made", [_conmon, _kept])
@pytest.mark.parametrize("hooks", [False, True])
def test_the_handler_stays_while_pods_have_it(host: Host, made: Any, hooks: bool) -> None:
    """CRI-O could not remove pods whose handler is gone: uninstall, and hooks instead, wait."""
    install("crio", host, "--default")
    file = made(host)
    before = registration.files(host.root)

    def take_out(*words: str) -> None:
        if hooks:
            install("crio", host, "--way", "hooks")
        else:
            service.plan_uninstall("crio", service.options("crio", "uninstall", words), host)

    with pytest.raises(ShimError, match="1 pod has the handler: aaaa"):
        take_out()
    assert registration.files(host.root) == before
    if not hooks:
        take_out("--force")
    file.unlink()
    take_out()


def test_pods_by_default_do_not_need_the_handler(host: Host) -> None:
    """Those that asked for none get the former default; what runs needs the program alone."""
    install("crio", host, "--default")
    running = _conmon(host)
    _kept(host, "")
    notes = uninstall("crio", host)
    assert notes[0].startswith("1 running container was started by it: its program must stay")
    assert notes[1].startswith(f"{host.path(SCRIPT)} stays, by which running containers")
    assert notes[2].startswith("restart CRI-O afterwards")
    assert not host.path(DROP_IN).exists()
    assert host.path(SCRIPT).exists()
    running.unlink()
    uninstall("crio", host)
    assert not host.path(SCRIPT).exists()
