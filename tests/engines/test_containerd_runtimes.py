"""Runtimes of others in containerd's configuration: ours stands in front of them."""

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from engines import registration, user_lands
from engines.registration import BIN, install, uninstall
from shim.engines import toml
from shim.engines.containerd import config_dump
from shim.engines.registration import Host, executable
from shim.errors import ShimError
from support import need
from vm import stacks

CRI2, CRI3 = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"
NVIDIA = "/usr/bin/nvidia-container-runtime"
SCRIPT = f"{BIN}/seccomp-shim-containerd-nvidia"
BINARY = ("options", "BinaryName")
TEXT = """\
version = {version}
imports = ["conf.d/*.toml"]
[plugins."{cri}".containerd]
  default_runtime_name = "nvidia"
  [plugins."{cri}".containerd.runtimes.nvidia]
    runtime_type = "io.containerd.runc.v2"
    [plugins."{cri}".containerd.runtimes.nvidia.options]
      BinaryName = "/usr/bin/nvidia-container-runtime"
      SystemdCgroup = true
  [plugins."{cri}".containerd.runtimes.kata]
    runtime_type = "io.containerd.kata.v2"
"""
LATER = """\
version = 3
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "nvidia"
"""


def _host(root: Path, name: str) -> Host:
    """Return a host with that containerd, whose default runtime is NVIDIA's."""
    program = need.program(name)
    version = 3 if b"containerd/v2" in subprocess.check_output([program, "--version"]) else 2
    registration.program(root / "usr/bin", "nvidia-container-runtime", "exit 1")
    (root / "etc/containerd/conf.d").mkdir(parents=True)
    text = TEXT.format(version=version, cri=CRI3 if version == 3 else CRI2)
    (root / "etc/containerd/config.toml").write_text(text)
    return registration.host(root, str(Path(program).parent))


@pytest.fixture(params=user_lands.NAMES)
def each_host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    """Return a host with each user land's containerd."""
    return _host(tmp_path, user_lands.program(request.param, "/usr/bin/containerd"))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a host with this host's containerd."""
    return _host(tmp_path, "containerd")


@pytest.fixture
def merging(tmp_path: Path) -> Host:
    """Return a host with a containerd that merges the files which it imports, as 2.x does."""
    [stack] = [each for each in stacks.STACKS if each.name == "sid"]
    return _host(tmp_path, str(stacks.ready(stack).root / "usr/bin/containerd"))


def said(host: Host) -> dict[str, Any]:
    """Return what the real containerd makes of its files."""
    program, path = host.program("containerd"), host.path("/etc/containerd/config.toml")
    command = [str(program), "--config", str(path), "config", "dump"]
    return config_dump.cri(tomllib.loads(subprocess.check_output(command).decode()))


def program(host: Host, name: str) -> str:
    """Return the program of a handler, as containerd has it."""
    return str(toml.look_up(said(host), ("runtimes", name, *BINARY)))


@pytest.mark.parametrize("times", [1, 2])
def test_the_former_default_is_what_is_called(each_host: Host, times: int) -> None:
    """Where NVIDIA's runtime is the default, ours calls that with all it had, also done twice."""
    host = each_host
    before = registration.files(host.root / "etc")
    for _ in range(times):
        install("containerd", host, "--default")
    assert said(host)["default_runtime_name"] == "seccomp-shim"
    assert program(host, "seccomp-shim") == SCRIPT
    assert toml.look_up(said(host), ("runtimes", "seccomp-shim", "options", "SystemdCgroup"))
    assert program(host, "nvidia") == NVIDIA
    assert executable.real_of(host.path(SCRIPT)) == NVIDIA
    uninstall("containerd", host)
    assert registration.files(host.root / "etc") == before
    assert not host.path(SCRIPT).exists()


def test_the_script_calls_the_wrapper_and_without_it_the_runtime(host: Host) -> None:
    """The wrapper is given the runtime that it stands in front of; gone, that is called itself."""
    install("containerd", host, "--default")
    script = host.path(SCRIPT)
    text = script.read_text().replace(str(BIN), f"{host.root}{BIN}")
    script.write_text(text.replace(NVIDIA, f"{host.root}{NVIDIA}"))
    for name in (f"{BIN}/seccomp-shim-runtime", NVIDIA):
        registration.program(host.path(name).parent, Path(name).name, 'echo "${0##*/}" "$@"')

    def call() -> list[str]:
        return subprocess.check_output([script, "create", "a b"], text=True).split()

    assert call()[:2] == ["seccomp-shim-runtime", "--real-runtime"]
    assert call()[3:] == ["create", "a", "b"]
    host.path(f"{BIN}/seccomp-shim-runtime").unlink()
    assert call() == ["nvidia-container-runtime", "create", "a", "b"]


def test_in_front_of_one_runtime(each_host: Host) -> None:
    """With --runtime the handler that is named calls the wrapper, and the default stays."""
    host = each_host
    before = registration.files(host.root / "etc")
    install("containerd", host, "--runtime", "nvidia")
    install("containerd", host, "--runtime", "nvidia")
    assert said(host)["default_runtime_name"] == "nvidia"
    assert "seccomp-shim" not in said(host)["runtimes"]
    assert program(host, "nvidia") == SCRIPT
    assert toml.look_up(said(host), ("runtimes", "nvidia", "options", "SystemdCgroup"))
    entries = registration.status("containerd", host)["entries"]
    found = [(each["name"], each["path"]) for each in entries]
    assert found == [("nvidia", SCRIPT), ("nvidia calls", NVIDIA)]
    uninstall("containerd", host)
    assert registration.files(host.root / "etc") == before


def test_in_front_of_one_runtime_and_as_the_default(host: Host) -> None:
    """Both can be asked for, one after the other; each calls NVIDIA's runtime once."""
    before = registration.files(host.root / "etc")
    install("containerd", host, "--runtime", "nvidia")
    install("containerd", host, "--default")
    assert said(host)["default_runtime_name"] == "seccomp-shim"
    assert program(host, "nvidia") == program(host, "seccomp-shim") == SCRIPT
    assert executable.real_of(host.path(SCRIPT)) == NVIDIA
    uninstall("containerd", host)
    assert registration.files(host.root / "etc") == before


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--runtime", "kata"), "kata is of the type io.containerd.kata.v2, a shim of its own"),
        (("--runtime", "none"), "none is not there"),
    ],
)
def test_a_shim_of_its_own_is_refused(host: Host, words: tuple[str, ...], complaint: str) -> None:
    """What is called by no command line, or is not there, is refused and nothing is written."""
    before = registration.files(host.root)
    with pytest.raises(ShimError, match=complaint):
        install("containerd", host, *words)
    assert registration.files(host.root) == before


def test_a_default_that_is_a_shim_of_its_own_is_not_replaced(host: Host) -> None:
    """Where Kata is the default, --default is refused; a handler beside it is like runc."""
    path = host.path("/etc/containerd/config.toml")
    path.write_text(path.read_text().replace('name = "nvidia"', 'name = "kata"'))
    with pytest.raises(ShimError, match=r"kata is of the type .*cannot be stood in front of"):
        install("containerd", host, "--default")
    plan = install("containerd", host)
    assert any("containerd's default kata" in note for note in plan.notes)
    assert said(host)["default_runtime_name"] == "kata"


def test_a_default_whose_program_is_gone_is_not_replaced(host: Host) -> None:
    """Where the default's program is not there the wrapper could not call it: refused."""
    host.path(NVIDIA).unlink()
    with pytest.raises(ShimError, match=f"a program that is not there: {NVIDIA}"):
        install("containerd", host, "--default")


@pytest.mark.vm
def test_a_file_that_sorts_later_is_outdone(merging: Host) -> None:
    """Where 99-nvidia.toml names the default, ours gets a name that sorts behind it."""
    host = merging
    before = registration.files(host.root / "etc")
    install("containerd", host)
    later = host.path("/etc/containerd/conf.d/99-nvidia.toml")
    later.write_text(LATER)
    install("containerd", host, "--default")
    assert said(host)["default_runtime_name"] == "seccomp-shim"
    assert program(host, "seccomp-shim") == SCRIPT
    names = sorted(path.name for path in later.parent.iterdir())
    assert names == ["99-nvidia.toml", "zz-seccomp-shim.toml"]
    uninstall("containerd", host)
    later.unlink()
    assert registration.files(host.root / "etc") == before


@pytest.mark.vm
def test_what_cannot_be_outdone_is_refused(merging: Host) -> None:
    """Where even that name is not the last, the file that overrules ours is named."""
    host = merging
    later = host.path("/etc/containerd/conf.d/zzz.toml")
    later.write_text(LATER)
    before = registration.files(host.root)
    with pytest.raises(ShimError, match=r"zzz.toml: the default is nvidia all the same"):
        install("containerd", host, "--default")
    assert registration.files(host.root) == before
    install("containerd", host)  # nobody overrules the handler


@pytest.mark.vm
def test_an_overruling_file_is_noticed(merging: Host) -> None:
    """Status calls for attention where a file that came later names another default."""
    host = merging
    install("containerd", host, "--default")
    assert registration.status("containerd", host)["problems"] == []
    host.path("/etc/containerd/conf.d/99-nvidia.toml").write_text(LATER)
    told = registration.status("containerd", host)
    [problem] = told["problems"]
    assert "99-nvidia.toml" in problem
    assert told["default"] is False
