"""The collection's installation and its role, on real hosts over ssh."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shim import __version__
from support import hosts, managed
from support.checkout import CHECKOUT
from support.profiles import DOCKER

COLLECTION = CHECKOUT / "deploy/ansible/ansible_collections/seccomp_shim/host"
DAEMON = "/etc/docker/daemon.json"
OLD = '{"log-level": "warn"}\n'
FILES = "find /opt /etc /usr/local ! -type d | sort"
PLAY = """\
- hosts: target
  become: true
  gather_facts: false
  environment:
    PIP_NO_INDEX: "1"
    PIP_FIND_LINKS: /srv/wheels
  roles:
    - seccomp_shim.host.seccomp_shim
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with all Python packages that installing takes: hosts have no network."""
    folder = tmp_path_factory.mktemp("wheels")
    document = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    needed = [*document["project"]["dependencies"], *document["build-system"]["requires"]]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel"]
    subprocess.run([*pip, "--wheel-dir", folder, *needed], check=True)
    return folder


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[hosts.Fleet]:
    """Yield a host with settings of Docker's and a profile."""
    with hosts.fleet(tmp_path_factory.mktemp("fleet"), ["target"]) as fleet:
        target = fleet["target"]
        target.write(DAEMON, OLD)
        target.write("/etc/docker/seccomp.json", json.dumps(DOCKER))
        target.states(uretprobe="filtered")
        for wheel in wheels.iterdir():
            target.write(f"/srv/wheels/{wheel.name}", wheel.read_bytes())
        yield fleet


def _play(fleet: hosts.Fleet, *words: str, **variables: Any) -> dict[str, int]:
    """Run the role; give Ansible's counts for the host."""
    inventory = fleet.inventory(fleet.folder / "hosts.json")
    playbook = fleet.folder / "play.yml"
    playbook.write_text(PLAY)
    done = managed.play(inventory, playbook, "-e", json.dumps(variables), *words)
    [recap] = [line for line in done.stdout.splitlines() if line.startswith("target ")]
    counts = dict(word.split("=") for word in recap.partition(":")[2].split())
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: int(count) for name, count in counts.items()}


@pytest.mark.alone
def test_the_role_installs_once_and_removes_without_a_trace(fleet: hosts.Fleet) -> None:
    """Foretold, installed with an engine told, not installed again, removed to the last file."""
    target = fleet["target"]
    wanted = {"seccomp_shim_program": "present", "seccomp_shim_engines": ["docker --default"]}
    before = target.run(FILES).stdout
    assert _play(fleet, "--check", "--diff", **wanted)["changed"] == 2
    assert target.run(FILES).stdout == before

    assert _play(fleet, **wanted)["changed"] == 2
    assert target.run("/usr/local/bin/seccomp-shim --version").stdout.split()[1] == __version__
    daemon = json.loads(target.read(DAEMON))
    assert daemon["default-runtime"] == "seccomp-shim"
    assert daemon["log-level"] == "warn"
    program = daemon["runtimes"]["seccomp-shim"]["path"]
    assert target.run(f"test -x {program}")
    assert "uretprobe" in target.read("/etc/docker/seccomp.json").decode()

    assert _play(fleet, **wanted)["changed"] == 0
    assert _play(fleet, "--check", **wanted)["changed"] == 0

    unwanted = {"seccomp_shim_program": "absent", "seccomp_shim_profiles": "rolled_back"}
    assert _play(fleet, "--check", **unwanted)["changed"] == 2
    assert _play(fleet, **unwanted)["changed"] == 2
    assert target.read(DAEMON) == OLD.encode()
    assert json.loads(target.read("/etc/docker/seccomp.json")) == DOCKER
    assert target.run(FILES).stdout == before
    assert _play(fleet, **unwanted)["changed"] == 0


def test_what_keeps_it_from_being_installed_is_one_line(fleet: hosts.Fleet) -> None:
    """Without root and with an engine that nobody knows, the task fails with the reason."""
    inventory = fleet.inventory(fleet.folder / "hosts.json")
    asked = managed.ask(inventory, "seccomp_shim_install", become=False)["target"]
    assert asked["failed"] is True
    assert asked["msg"] == "installing takes root: add become: true"
    given = {"state": "absent", "engines": ["dokcer"]}
    asked = managed.ask(inventory, "seccomp_shim_install", given=given)["target"]
    assert asked["failed"] is True
    assert asked["msg"].startswith("dokcer: is no engine that is known here")


@pytest.mark.parametrize("name", ["facts", "profile", "install"])
def test_documentation_can_be_read(name: str) -> None:
    """ansible-doc shows each module with the options that it takes."""
    asked = [str(managed.BIN / "ansible-doc"), "-j", f"{managed.COLLECTION}.seccomp_shim_{name}"]
    environment = managed.environment()
    done = subprocess.run(
        asked, cwd=managed.EXAMPLE, env=environment, capture_output=True, check=True
    )
    [told] = json.loads(done.stdout).values()
    assert told["doc"]["options"].keys() >= {"payload", "payload_file"}
    assert told["examples"]
    assert told["return"]


def test_the_collection_can_be_built(tmp_path: Path) -> None:
    """ansible-galaxy makes an archive of it that holds every module."""
    build = [str(managed.BIN / "ansible-galaxy"), "collection", "build", str(COLLECTION)]
    subprocess.run([*build, "--output-path", str(tmp_path)], check=True, capture_output=True)
    [archive] = tmp_path.glob("seccomp_shim-host-*.tar.gz")
    listed = subprocess.run(["tar", "tf", archive], check=True, capture_output=True, text=True)
    assert "plugins/modules/seccomp_shim_profile.py" in listed.stdout.splitlines()
    assert f"-{__version__}." in archive.name
