"""The Docker SDK's clients as we give them, against a real dockerd."""

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker as sdk
import pytest
from docker.errors import APIError, DockerException
from docker.models.containers import Container

from engines.capture import Capture
from shim.engines.docker import builtin, from_env, shim_client
from shim.engines.docker.choose import RUNTIME
from shim.engines.docker.sdk import Client, Refused
from shim.engines.registration import hookfile
from shim.profile.edit import When
from support import auditlog, engines, image
from support.containers import ENOSYS, EPERM, TEST_SYSCALL

ROOT = Path(__file__).parents[2]
CALL = [image.CALLER, str(TEST_SYSCALL)]
ERRNO_OF_UNTOUCHED, ERRNO_OF_ADJUSTED = {TEST_SYSCALL: EPERM}, {TEST_SYSCALL: ENOSYS}


@dataclass
class Lab:
    """A dockerd in which the wrapper and a capturing runtime are registered."""

    docker: engines.Docker
    capture: Capture

    @property
    def log_path(self) -> Path:
        """Where the settings have everything logged."""
        return self.docker.folder / "audit.jsonl"

    def configure(self, default: str = "runc", **settings: object) -> str:
        """Set the daemon's default runtime and write settings; give the settings' path."""
        path = self.docker.folder / "config.yaml"
        path.write_text(json.dumps({"log": str(self.log_path), **settings}))
        path.chmod(0o644)
        wrapper = str(self.docker.folder / "bin/seccomp-shim-runtime")
        runtimes: dict[str, Any] = {"capture": {"path": str(self.capture.program)}}
        if default == "runc":
            runtimes[RUNTIME] = {"path": wrapper, "runtimeArgs": ["--config", str(path)]}
        self.docker.configure({"runtimes": runtimes, "default-runtime": default})
        self.docker.reload()
        self.log_path.unlink(missing_ok=True)
        return str(path)

    def plain(self) -> sdk.DockerClient:
        """Return the SDK's own client."""
        return sdk.DockerClient(base_url=f"unix://{self.docker.socket}")

    def client(self, settings: str, when: When = "needed") -> Client:
        """Return ours."""
        return shim_client(self.plain(), when=when, settings=settings)

    def log(self) -> list[dict[str, Any]]:
        """Return the log's lines that tell of decisions over a creation, and forget all."""
        lines = [json.loads(line) for line in self.log_path.read_text().splitlines()]
        self.log_path.unlink()
        return [line for line in lines if "image" in line]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Start the daemon once for all."""
    with engines.dockerd() as docker:
        (docker.folder / "bin").mkdir()
        hookfile.render_all(docker.folder / "bin")
        yield Lab(docker, Capture(docker.folder, libseccomp="2.6.0"))


@pytest.fixture
def client(lab: Lab) -> Client:
    """Return a client for a daemon with the wrapper, with settings that name a test syscall."""
    return lab.client(lab.configure(test_syscall=TEST_SYSCALL))


def _outcome(client: sdk.DockerClient, **options: Any) -> dict[int, int]:
    output: bytes = client.containers.run(image.NAME, CALL, remove=True, **options)
    return image.outcomes(output.decode())


def _outcome_of(container: Container) -> dict[int, int]:
    container.start()
    container.wait()
    text = container.logs().decode()
    container.remove()
    return image.outcomes(text)


def test_run_lets_the_call_through(lab: Lab, client: Client) -> None:
    """containers.run's container may make the call; that of the SDK's own client may not."""
    assert _outcome(lab.plain()) == ERRNO_OF_UNTOUCHED
    assert _outcome(client) == ERRNO_OF_ADJUSTED
    [decision] = client.adjustments
    assert decision.choice.action == "runtime"
    assert decision.choice.calls == (f"test-syscall-{TEST_SYSCALL}",)
    asked, created = lab.log()
    assert (asked["event"], asked["mechanism"]) == ("requested", "runtime")
    assert (asked["syscall"], asked["image"]) == (f"test-syscall-{TEST_SYSCALL}", image.NAME)
    assert created["event"] == "created"


def test_one_line_tells_of_an_adjustment(lab: Lab, client: Client) -> None:
    """The wrapper's, with what it did: the SDK has only asked for the wrapper. Both name the id."""
    client.containers.run(image.NAME, CALL, remove=True)
    lines = auditlog.lines(lab.log_path)
    [adjusted] = [line for line in lines if line["event"] == "adjusted"]
    [created] = [line for line in lines if line["event"] == "created"]
    assert adjusted["mechanism"] == "filter-injection"
    assert adjusted["container"] == created["container"] == client.decisions[-1].container


def test_create_lets_the_call_through(lab: Lab, client: Client) -> None:
    """So does containers.create, whose decision is found by the container; the log has its id."""
    container = client.containers.create(image.NAME, CALL, name="created-here")
    assert container.attrs["HostConfig"]["Runtime"] == RUNTIME
    decision = client.decision(container)
    assert decision is not None
    assert decision.adjusted
    assert decision == client.decision(str(container.id))
    assert client.decision("nonesuch") is None
    assert _outcome_of(container) == ERRNO_OF_ADJUSTED
    asked, created = lab.log()
    assert (asked["event"], asked["container"]) == ("requested", "created-here")
    assert (created["event"], created["container"]) == ("created", container.id)


def test_the_low_level_client_lets_the_call_through(client: Client) -> None:
    """So does api.create_container with api.create_host_config, and its answer says so."""
    api = client.api
    host = api.create_host_config(security_opt=["no-new-privileges"], cap_drop=["ALL"])
    asked = json.dumps(host)
    answer = api.create_container(image.NAME, CALL, host_config=host)
    assert answer["Warnings"][-1] == f"seccomp-shim: for test-syscall-{TEST_SYSCALL}"
    assert json.dumps(host) == asked
    container = client.containers.get(answer["Id"])
    assert container.attrs["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
    assert _outcome_of(container) == ERRNO_OF_ADJUSTED


def test_all_else_is_the_sdks_own(lab: Lab, client: Client) -> None:
    """It is a DockerClient, it lists what the plain one lists, and the plain one is unchanged."""
    assert isinstance(client, sdk.DockerClient)
    assert isinstance(client.api, sdk.APIClient)
    plain = lab.plain()
    assert client.ping()
    assert client.version() == plain.version()
    assert [i.id for i in client.images.list()] == [i.id for i in plain.images.list()]
    assert client.volumes.list() == plain.volumes.list()
    assert client.swarm.client is client
    shim_client(plain)
    assert type(plain) is sdk.DockerClient
    assert type(plain.api) is sdk.APIClient
    with pytest.raises(APIError):
        client.containers.run("no-such-image:at-all")


def test_a_client_of_the_users_own_class_keeps_it(lab: Lab, client: Client) -> None:
    """A subclass of the SDK's client has its own methods still; ours of ours is ours."""

    class Own(sdk.DockerClient):
        def hello(self) -> str:
            return self.containers.__class__.__name__

    own = Own(base_url=f"unix://{lab.docker.socket}")
    ours = shim_client(own, settings=client.api.settings)
    assert isinstance(ours, Own)
    assert ours.hello() == "ContainerCollection"
    again = shim_client(ours, settings=client.api.settings)
    assert _outcome(again) == ERRNO_OF_ADJUSTED
    assert len(again.decisions) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"security_opt": ["seccomp=unconfined"]}, "seccomp=unconfined: it has no filter"),
        ({"privileged": True}, "privileged: it has no filter"),
        (
            {"runtime": "runc"},
            "the runtime runc was asked for by name, which is not ours; "
            "`seccomp-shim install docker --runtime runc` on its host covers it",
        ),
    ],
)
def test_what_the_user_chose_stays(
    lab: Lab, client: Client, options: dict[str, Any], reason: str
) -> None:
    """Without a filter, or with a runtime asked for, the container is what was asked for."""
    ours = client.containers.create(image.NAME, CALL, **options)
    theirs = lab.plain().containers.create(image.NAME, CALL, **options)
    assert ours.attrs["HostConfig"] == theirs.attrs["HostConfig"]
    [decision] = client.decisions
    assert decision.choice.reason == reason
    assert not decision.adjusted
    [line] = lab.log()
    assert (line["event"], line["reason"]) == ("left-alone", reason)
    for container in (ours, theirs):
        container.remove()


def test_from_several_threads(client: Client) -> None:
    """Threads may share a client: each container is adjusted, each decision is its own."""

    def create(number: int) -> str:
        container = client.containers.create(image.NAME, CALL, name=f"thread-{number}")
        assert container.attrs["HostConfig"]["Runtime"] == RUNTIME
        return str(container.id)

    with ThreadPoolExecutor(8) as pool:
        idents = list(pool.map(create, range(24)))
    assert sorted(each.container for each in client.adjustments) == sorted(idents)
    outcomes = [_outcome_of(client.containers.get(ident)) for ident in idents[::12]]
    assert outcomes == [ERRNO_OF_ADJUSTED] * 2
    for ident in idents[1:12]:
        client.containers.get(ident).remove()


def test_the_profile_gets_the_name(lab: Lab) -> None:
    """Where the runtime's libseccomp knows the name, the profile of the version gets it."""
    client = lab.client(lab.configure(default="capture"), when="always")
    lab.capture.taken()
    lab.plain().containers.run(image.NAME, CALL, remove=True)
    client.containers.run(image.NAME, CALL, remove=True, security_opt=["apparmor=unconfined"])
    before, after = (document["linux"]["seccomp"] for document in lab.capture.taken())
    added = {"names": ["uretprobe"], "action": "SCMP_ACT_ALLOW"}
    assert after["syscalls"][0] == added
    assert _names(after["syscalls"][1:]) == _names(before["syscalls"])
    [decision] = client.adjustments
    assert (decision.choice.action, decision.choice.calls) == ("profile", ("uretprobe",))
    asked, adjusted = lab.log()
    assert (asked["event"], adjusted["event"]) == ("requested", "adjusted")
    assert (adjusted["mechanism"], adjusted["syscall"]) == ("name", "uretprobe")
    assert adjusted["container"] == decision.container


def test_inspect_shows_the_profile_that_was_added(lab: Lab) -> None:
    """The user's other security options stay, the augmented profile is what inspect shows."""
    client = lab.client(lab.configure(default="capture"), when="always")
    own, _ = builtin.profile("20.10.0")
    assert own is not None
    asked = ["no-new-privileges", f"seccomp={json.dumps(own.tree)}"]
    container = client.containers.create(image.NAME, CALL, security_opt=asked)
    try:
        first, profile = container.attrs["HostConfig"]["SecurityOpt"]
        assert first == asked[0]
        added, *rest = json.loads(profile.removeprefix("seccomp="))["syscalls"]
        assert added["names"] == ["uretprobe"]
        assert rest == own.tree["syscalls"]
    finally:
        container.remove()


def _names(rules: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {
        (name, json.dumps({**rule, "names": 0}, sort_keys=True))
        for rule in rules
        for name in rule["names"]
    }


def test_an_explicit_deny_is_respected(lab: Lab) -> None:
    """A profile that denies the call by name means it."""
    client = lab.client(lab.configure(), when="always")
    names = ["uretprobe", "uprobe"]
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO"}],
    }
    text = f"seccomp={json.dumps(profile)}"
    container = client.containers.create(image.NAME, CALL, security_opt=[text])
    container.remove()
    assert container.attrs["HostConfig"]["SecurityOpt"] == [text]
    assert container.attrs["HostConfig"]["Runtime"] == "runc"
    [decision] = client.decisions
    assert "denied by name" in decision.choice.reason


def test_nothing_where_the_kernel_does_not_call_for_it(lab: Lab) -> None:
    """Without one, a kernel that is not affected is left alone, and found out only once."""
    client = lab.client(lab.configure())
    assert _outcome(client) == ERRNO_OF_UNTOUCHED
    [decision] = client.decisions
    assert "does not call for it" in decision.choice.reason


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_an_adjustment_that_cannot_be_logged_is_not_made(lab: Lab, on_error: str) -> None:
    """By on_error the container is then created as it was asked for, or not at all."""
    nowhere = str(lab.docker.folder / "no-folder" / "log")
    settings = lab.configure(test_syscall=TEST_SYSCALL, log=nowhere, on_error=on_error)
    client = lab.client(settings)
    count = len(client.containers.list(all=True))
    if on_error == "deny":
        with pytest.raises(Refused, match="cannot log") as caught:
            client.containers.create(image.NAME, CALL)
        assert isinstance(caught.value, DockerException)
        assert len(client.containers.list(all=True)) == count
        return
    answer = client.api.create_container(image.NAME, CALL)
    assert "cannot log" in answer["Warnings"][-1]
    assert _outcome_of(client.containers.get(answer["Id"])) == ERRNO_OF_UNTOUCHED
    assert not client.adjustments


def test_a_fault_of_ours_does_not_break_the_call(lab: Lab) -> None:
    """Where the daemon cannot be asked, the container is created as it was asked for."""

    class Shy(sdk.APIClient):
        def info(self) -> dict[str, Any]:
            raise ValueError("I will not say")

    plain = lab.plain()
    plain.api = Shy(base_url=f"unix://{lab.docker.socket}")
    client = shim_client(plain, settings=lab.configure(test_syscall=TEST_SYSCALL))
    assert isinstance(client.api, Shy)
    assert _outcome(client) == ERRNO_OF_UNTOUCHED
    [line] = lab.log()
    assert (line["event"], line["level"]) == ("failed", "error")
    assert "I will not say" in line["reason"]
    client = shim_client(plain, settings=lab.configure(test_syscall=TEST_SYSCALL, on_error="deny"))
    with pytest.raises(Refused, match="I will not say"):
        client.containers.create(image.NAME, CALL)


def test_a_user_without_roots_rights_has_a_log_of_its_own(lab: Lab) -> None:
    """Whoever may use the daemon gets adjusted containers, logged in that user's home."""
    lab.configure(test_syscall=TEST_SYSCALL)
    folder, uid = lab.docker.folder, 7001
    (folder / "home").mkdir()
    os.chown(folder / "home", uid, uid)
    program = (
        "from shim.engines.docker import from_env\n"
        f"client = from_env(settings='{folder}/config.yaml', when='always')\n"
        f"print(client.api.create_container('{image.NAME}', 'true')['Warnings'])"
    )
    (folder / "user.py").write_text(program)
    done = lab.docker.host.run(
        f"echo sdk:x:{uid}:{uid}::{folder}/home:/bin/sh >>/etc/passwd\n"
        f"chmod 755 {folder}; chown {uid} {lab.docker.socket}; cd {ROOT}\n"
        f"DOCKER_HOST=unix://{lab.docker.socket} "
        f"setpriv --reuid {uid} --regid {uid} --clear-groups {sys.executable} {folder}/user.py"
    )
    assert (
        done.stdout == f"['seccomp-shim: for test-syscall-{TEST_SYSCALL}, uretprobe, uprobe']\n"
    ), done.stderr
    log = (folder / "home/.local/state/seccomp-shim/audit.jsonl").read_text()
    assert [json.loads(line)["event"] for line in log.splitlines()] == ["requested", "created"]


def test_from_env_takes_what_dockers_takes(
    lab: Lab, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """from_env finds the daemon as the SDK does, and hands its options on."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{lab.docker.socket}")
    client = from_env(settings=client.api.settings, timeout=7)
    assert client.api.timeout == 7
    assert _outcome(client) == ERRNO_OF_ADJUSTED


def test_the_documented_example_runs(lab: Lab) -> None:
    """The program of docs/sdk.md prints what is printed there."""
    settings = lab.configure(test_syscall=TEST_SYSCALL)
    lab.docker.host.run(f"mkdir -p /etc/seccomp-shim; cp {settings} /etc/seccomp-shim/config.yaml")
    lab.plain().images.get(image.NAME).tag("debian", "12")
    blocks = (ROOT / "docs/sdk.md").read_text().split("```")
    program, output = blocks[1].removeprefix("python\n"), blocks[3].lstrip("\n")
    (lab.docker.folder / "example.py").write_text(program)
    done = lab.docker.host.run(
        f"cd {ROOT}; DOCKER_HOST=unix://{lab.docker.socket} {sys.executable} "
        f"{lab.docker.folder}/example.py"
    )
    # A test_syscall stands in for the call on a kernel that is not affected.
    assert done.stdout.replace(f"test-syscall-{TEST_SYSCALL}", "uretprobe") == output
