"""Install, uninstall and status are one service, whoever calls it; what it tells is typed."""

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from engines import registration
from shim.agent import facts, register
from shim.engines import service
from shim.engines.registration import ENGINES, Host
from shim.engines.registration.status import StatusEntry, unknown
from shim.errors import ShimError

DROP_IN = "root/.config/containers/containers.conf.d/99-seccomp-shim.conf"
DOCUMENTS = {
    "docker": "engine present registered entries default in_use profile version covers "
    "not_covered covers_all unseen running known problems notes",
    "podman": "engine present registered entries default covers not_covered covers_all running "
    "known problems notes way",
    "containerd": "engine present registered entries default covers not_covered covers_all unseen "
    "in_use running known problems notes",
    "crio": "engine present registered entries default in_use covers not_covered covers_all "
    "unseen running known problems notes way",
}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a host with runc and nothing installed."""
    registration.program(tmp_path / "bin", "runc", "exit 1")
    return registration.host(tmp_path, str(tmp_path / "bin"))


@pytest.fixture
def agents(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return that host as the one that the agent runs on."""
    monkeypatch.setattr(register, "this_host", lambda: host)
    monkeypatch.setattr(facts, "this_host", lambda: host)
    return host


@pytest.mark.parametrize("engine", ENGINES)
def test_a_document_has_its_keys_in_their_order(host: Host, engine: str) -> None:
    """Programs and people that read --json find what they found, registered or not."""
    options = service.options(engine, "status")
    for _ in range(2):
        told = service.status(engine, options, host)
        document = json.loads(json.dumps(told.document()))
        assert list(document) == DOCUMENTS[engine].split()
        assert (document["engine"], document["registered"]) == (engine, told.registered)
        for entry, each in zip(told.entries, document["entries"], strict=True):
            keys = ["file", "name", "path", "exists", "handler"]
            assert list(each) == keys[: 4 if entry.handler is None else 5]
        registration.install(engine, host)
    assert told.registered
    assert (document["covers"], document["not_covered"]) == told.coverage[:2]


def test_what_cannot_be_told_is_a_document_as_well(host: Host) -> None:
    """An engine whose files cannot be read hides none of the others."""
    host.path("/etc/docker").mkdir(parents=True)
    host.path("/etc/docker/daemon.json").write_text("{")
    told = service.status_or_problem("docker", host)
    assert told == unknown("docker", told.problems[0])
    assert list(told.document()) == ["engine", "present", "registered", "problems"]
    assert told.document()["registered"] is None
    assert service.status_or_problem("podman", host).registered is False


def test_a_status_cannot_be_changed(host: Host) -> None:
    """What one caller adds is in a copy of its own."""
    told = service.status_or_problem("podman", host)
    entry = StatusEntry(file="/f", name="n", path="/p", exists=True)
    with pytest.raises(FrozenInstanceError):
        told.problems = ["mine"]  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        entry.exists = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("engine", "verb", "words", "says"),
    [
        ("lxc", "install", [], "lxc: is no engine that is known here"),
        ("crio", "install", ["--config", "/f"], "unrecognized arguments: --config"),
        ("docker", "uninstall", ["--default"], "unrecognized arguments: --default"),
    ],
)
def test_words_that_are_not_an_engines_own(
    engine: str, verb: service.Verb, words: list[str], says: str
) -> None:
    """They are an error like any other: no process ends over them."""
    with pytest.raises(ShimError, match=says):
        service.options(engine, verb, words)


def test_the_agent_does_what_the_verbs_do(agents: Host) -> None:
    """Checked, done, and done again without a change; then undone byte for byte."""
    before = registration.files(agents.root)
    words = {"crio": ["--default"], "containerd": []}
    planned = register.registered(words, present=True, check=True)
    assert planned["changed"]
    assert registration.files(agents.root) == before
    done = register.registered(words, present=True, check=False)
    assert done["diff"] == planned["diff"]
    assert service.installed(agents) == ["containerd", "crio"]
    assert service.status_or_problem("crio", agents).default
    assert not register.registered(words, present=True, check=False)["changed"]
    gone = register.registered(dict.fromkeys(words, ()), present=False, check=False)
    assert gone["changed"]
    assert service.installed(agents) == []
    logs = "var/log/audit.jsonl"
    after = registration.files(agents.root)
    assert {k: v for k, v in after.items() if k != logs} == before


def test_facts_tell_of_engines_as_status_does(agents: Host) -> None:
    """Also that somebody has taken out what was installed."""
    registration.install("crio", agents, "--default")
    [drop_in] = agents.path("/etc/crio").rglob("*.conf")
    drop_in.unlink()
    told = {each["engine"]: each for each in facts.gather(profiles=False)["engines"]}
    assert list(told) == list(ENGINES)
    [problem] = told["crio"]["problems"]
    assert problem.startswith(f"{drop_in}: our entries are gone: seccomp-shim install crio")
    assert told["crio"] == service.status_or_problem("crio", agents).document()


def test_a_program_of_an_engine_is_waited_for_with_a_limit(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs is as one that cannot be run; one that is not there is not looked for."""
    monkeypatch.setattr("shim.engines.registration._SECONDS", 0.2)
    registration.program(host.root / "bin", "podman", "exec sleep 60")
    done = host.run("podman", "--version")
    assert (done.returncode, done.stdout) == (127, "")
    assert "timed out" in done.stderr
    assert host.run("sh", "-c", "echo").returncode == 127
    registration.install("podman", host)
    assert service.status_or_problem("podman", host).registered
