"""In front of one of Docker's runtimes that others have registered."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from engines.verbs import (
    ENOSYS,
    EPERM,
    FILE,
    WRAPPER,
    add_other_runtime,
    info,
    outcome,
    read,
    shim,
    state,
    write,
)
from shim.engines.docker import dockerd
from support import engines, image
from support.host import Host


@pytest.fixture
def docker(docker: engines.Docker) -> engines.Docker:
    """Return a dockerd that has a runtime of somebody else's, and us installed beside it."""
    add_other_runtime(docker, default="runc")
    return docker


def test_whoever_asks_for_it_is_covered(docker: engines.Docker) -> None:
    """With --runtime the name stays, the wrapper calls what it was, and the default stays."""
    before = state(docker.host)
    assert outcome(docker, "--runtime", "other") == EPERM
    said = shim(docker.host, "install docker --runtime other").stderr
    assert f"other is the wrapper, and calls {docker.folder}/other" in said
    assert outcome(docker, "--runtime", "other") == ENOSYS
    assert outcome(docker) == EPERM
    calls = Path(f"{docker.folder}/other.log").read_text().splitlines()
    assert [c.startswith("--debug ") for c in calls if " create " in c] == [True, True]
    told = shim(docker.host, "status docker").stdout
    assert "covered: only containers that are created with --runtime other" in told
    # As the default, too: it is called once, and not through itself.
    shim(docker.host, "install docker --default")
    assert "runtimeArgs" not in json.loads(read(docker.host, FILE))["runtimes"]["seccomp-shim"]
    assert (outcome(docker), outcome(docker, "--runtime", "other")) == (ENOSYS, ENOSYS)
    shim(docker.host, "uninstall docker")
    assert state(docker.host) == before
    assert outcome(docker, "--runtime", "other") == EPERM


def test_a_default_that_was_changed_since_is_noticed(docker: engines.Docker) -> None:
    """Where somebody gives Docker another default runtime, status calls for attention."""
    shim(docker.host, "install docker --default")
    shim(docker.host, "status docker")
    document = json.loads(read(docker.host, FILE))
    docker.configure({**document, "default-runtime": "runc"})
    docker.reload()
    assert info(docker)["DefaultRuntime"] == "runc"
    done = shim(docker.host, "status docker", code=1)
    assert "made the default runtime, and somebody has changed that since" in done.stdout
    docker.configure({"debug": True})
    docker.reload()
    assert "our entries are gone" in shim(docker.host, "status docker", code=1).stdout


def test_the_docker_verb_says_so(docker: engines.Docker) -> None:
    """Of a container by a runtime that is not ours one line says it, and how it can be."""
    address = f"DOCKER_HOST=unix://{docker.socket}"
    words = f"docker --dry-run run --network none --runtime other {image.NAME} true"

    def said() -> str:
        return shim(docker.host, words, before=address).stderr

    assert "the runtime other was asked for by name, which is not ours" in said()
    assert "seccomp-shim install docker --runtime other" in said()
    shim(docker.host, "install docker --runtime other")
    assert said() == ""


RUNTIMES = {
    "nvidia": {"path": "/usr/bin/env", "runtimeArgs": []},
    "kata": {"runtimeType": "io.containerd.kata.v2"},
    "kata-1": {"path": "/usr/bin/env"},
    "typed": {
        "runtimeType": "io.containerd.runc.v2",
        "options": {"BinaryName": "/usr/bin/env", "SystemdCgroup": True},
    },
}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("kata", "is a containerd shim"),
        ("kata-1", "runs virtual machines"),
        ("none", "has no runtime none to stand in front of (it has: nvidia, kata, kata-1, typed)"),
        ("runc", "has no runtime runc to stand in front of"),
        ("seccomp-shim", "has no runtime seccomp-shim to stand in front of"),
        ("typed", "is given by runtimeType and options, which would be lost"),
    ],
)
def test_what_cannot_be_stood_in_front_of_is_refused(host: Host, name: str, reason: str) -> None:
    """Another shim's, none, or one whose options would be lost: one line, nothing is written."""
    write(host, FILE, json.dumps({"runtimes": RUNTIMES}).encode())
    before = state(host)
    assert reason in shim(host, f"install docker --runtime {name}", code=2).stderr
    assert state(host) == before


@pytest.mark.parametrize("record", [True, False])
def test_uninstall_gives_the_entry_back(host: Host, record: bool) -> None:
    """Byte for byte with the record, and without it what the entry said before."""
    text = json.dumps({"default-runtime": "runc", "runtimes": RUNTIMES}, indent=1).encode()
    write(host, FILE, text)
    shim(host, "install docker --runtime nvidia")
    entry = json.loads(read(host, FILE))["runtimes"]["nvidia"]
    assert entry == {"path": WRAPPER, "runtimeArgs": ["--real-runtime", "/usr/bin/env"]}
    if not record:
        host.run("rm -rf /var/lib/seccomp-shim")
    shim(host, "uninstall docker")
    after = read(host, FILE)
    expected = json.loads(text)
    if record:
        assert after == text
    else:
        del expected["runtimes"]["nvidia"]["runtimeArgs"]
        assert json.loads(after) == expected


def test_a_dockerd_that_has_ended_meanwhile_stops_nobody() -> None:
    """One that nobody has waited for yet has no directory any more that it runs in."""
    with subprocess.Popen(["/bin/true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        ended = dockerd.RunningDockerd(
            process.pid, "", dockerd.Flags("", ("--config-file", "mine.json"))
        )
        assert ended.config_file == Path("/mine.json")
        assert not dockerd.builds_by_us(ended)
