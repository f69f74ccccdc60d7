"""What docker then refuses is logged as asked for, and by nobody as adjusted."""

import json
from collections.abc import Iterator
from pathlib import Path

import docker as sdk
import pytest
from docker.errors import APIError, ImageNotFound

from engines import composes
from engines.shimmed import ALONE, CALL, Shimmed, shimmed
from shim.engines.docker import shim_client
from shim.profile.edit import When
from support import image
from support.containers import TEST_SYSCALL

NAME = "taken"
CONFLICT = f'The container name "/{NAME}" is already in use'


@pytest.fixture(scope="module")
def started() -> Iterator[Shimmed]:
    """Start a daemon in which a container has a name already."""
    with shimmed() as shim:
        shim.docker("create", "--name", NAME, image.NAME, "true")
        composes.install("trixie", shim.docker.folder / "client")
        yield shim


@pytest.fixture
def shim(started: Shimmed) -> Shimmed:
    """Return it with the wrapper registered."""
    started.configure()
    return started


def events(shim: Shimmed) -> list[str]:
    """Return what the log tells of, in order."""
    return [line["event"] for line in shim.log()]


@pytest.mark.parametrize("verb", ["run", "create"])
def test_by_the_verb(shim: Shimmed, verb: str) -> None:
    """Docker's message and exit status are its own."""
    words = [verb, "--name", NAME, *ALONE, image.NAME, *CALL]
    plain = shim.docker(*words, code=None)
    done = shim(*words, code=plain.returncode)
    assert plain.returncode == (125 if verb == "run" else 1)
    assert CONFLICT in plain.stderr
    assert CONFLICT in done.stderr
    assert events(shim) == ["requested"]


def test_by_compose(shim: Shimmed, tmp_path: Path) -> None:
    """For each service that something was asked for."""
    web = {"image": image.NAME, "command": "true", "container_name": NAME, "network_mode": "none"}
    (tmp_path / "compose.yaml").write_text(json.dumps({"services": {"web": web}}))
    done = shim("compose", "up", code=1, folder=tmp_path)
    assert CONFLICT in done.stderr
    assert events(shim) == ["requested"]


@pytest.mark.parametrize("way", ["runtime", "profile"])
def test_by_the_sdk(shim: Shimmed, tmp_path: Path, way: str) -> None:
    """The next line says so, with the daemon's words; what is created has its id in the next."""
    if way == "profile":
        shim.configure(wrapper=False, default="capture", test_syscall=False)
    settings = tmp_path / "config.yaml"
    test_syscall = {"test_syscall": TEST_SYSCALL} if way == "runtime" else {}
    settings.write_text(json.dumps({"log": str(shim.log_path), **test_syscall}))
    plain = sdk.DockerClient(base_url=f"unix://{shim.docker.socket}")
    when: When = "needed" if way == "runtime" else "always"
    client = shim_client(plain, when=when, settings=str(settings))
    with pytest.raises(APIError, match="is already in use"):
        client.containers.create(image.NAME, "true", name=NAME)
    asked, refused = shim.log()
    assert (asked["event"], refused["event"]) == ("requested", "not-created")
    assert CONFLICT in refused["reason"]
    same = ("mechanism", "syscall", "container", "image")
    assert [asked[key] for key in same] == [refused[key] for key in same]
    with pytest.raises(ImageNotFound):
        client.containers.create("no-such-image")
    client.containers.create(image.NAME, "true").remove()
    made = "created" if way == "runtime" else "adjusted"
    assert events(shim)[2:] == ["requested", "not-created", "requested", made]
    client.close()
