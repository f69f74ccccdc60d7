"""Registering with a dockerd that runs: what it is told, and what its containers get."""

import json
from pathlib import Path

import pytest

from engines import user_lands
from engines.verbs import (
    AS_NOBODY,
    ENOSYS,
    EPERM,
    FILE,
    TEST_SYSCALL,
    add_other_runtime,
    info,
    outcome,
    prepare,
    read,
    remove,
    replace_daemon,
    shim,
    state,
)
from support import engines, image

NETLESS = ("--network", "none")


@pytest.mark.parametrize("user_land", user_lands.NAMES)
def test_containers_run_through_it_after_a_reload(docker: engines.Docker, user_land: str) -> None:
    """Install reloads the running dockerd; its containers are adjusted from then on."""
    replace_daemon(docker, user_land)
    assert outcome(docker) == EPERM
    done = shim(docker.host, "install docker")
    assert f"has read {FILE} again" in done.stderr
    assert outcome(docker, "--runtime", "seccomp-shim") == ENOSYS
    assert outcome(docker) == EPERM
    status = shim(docker.host, "status docker").stdout
    assert "registered for some containers only, the running one knows it" in status
    shim(docker.host, "install docker --default")
    assert outcome(docker) == ENOSYS
    assert info(docker)["DefaultRuntime"] == "seccomp-shim"
    done = shim(docker.host, "uninstall docker")
    assert "before seccomp-shim is removed" in done.stderr
    docker.host.run(f"test ! -e {FILE}")
    assert "until then it starts" in shim(docker.host, "status docker", code=1).stdout
    assert "restart dockerd first" in remove(docker.host, code=2).stderr
    docker.stop()
    docker.start()
    assert "seccomp-shim" not in info(docker)["Runtimes"]
    assert outcome(docker) == EPERM
    shim(docker.host, "status docker")


def test_the_log_calls_containers_as_dockerd_does(docker: engines.Docker) -> None:
    """By name and image for as long as the engine knows them, also when they have ended."""
    shim(docker.host, "install docker")
    options = ["--name", "told", "--runtime", "seccomp-shim", *NETLESS]
    docker("run", *options, image.NAME, image.CALLER, str(TEST_SYSCALL))
    where = f"DOCKER_HOST=unix://{docker.socket}"
    text = shim(docker.host, "log", before=where).stdout
    (row,) = [each for each in text.splitlines() if "told" in each]
    assert image.NAME in row
    assert "adjusted by" in row
    assert row.split() in [
        each.split()
        for each in shim(docker.host, "log --container told", before=where).stdout.splitlines()
    ]
    docker("rm", "told")
    assert "told" not in shim(docker.host, "log", before=where).stdout


def test_uninstall_strands_no_container(docker: engines.Docker) -> None:
    """Containers that were created with the runtime keep it from being taken away, but by force."""
    shim(docker.host, "install docker")
    docker("create", "--name", "mine", "--runtime", "seccomp-shim", image.NAME, "/bin/true")
    before = state(docker.host)
    done = shim(docker.host, "uninstall docker", code=2)
    assert "1 container was created with the runtime" in done.stderr
    assert "mine" in done.stderr
    assert state(docker.host) == before
    shim(docker.host, "uninstall docker --force")
    docker.host.run(f"test ! -e {FILE}")


@pytest.mark.parametrize("args", [[], ["--debug"]], ids=["bare", "with-arguments"])
def test_uninstall_breaks_no_container_of_a_runtime_we_stand_in_front_of(
    docker: engines.Docker, args: list[str]
) -> None:
    """With the entry's arguments its script goes, by which containers run: refused, and told."""
    add_other_runtime(docker, default="runc", args=args)
    shim(docker.host, "install docker --runtime other")
    docker("create", *NETLESS, "--name", "stopped", "--runtime", "other", image.NAME, "/bin/true")
    done = shim(docker.host, "uninstall docker", code=2)
    assert "1 container has the runtime other, of which the wrapper is taken out: stopped" in (
        done.stderr
    )
    assert "these run by a script" not in done.stderr
    started = ("--name", "pre", "--runtime", "other", image.NAME, "/bin/sleep", "1000")
    docker("run", "--detach", *NETLESS, *started)
    before = state(docker.host)
    done = shim(docker.host, "uninstall docker", code=2)
    assert "2 containers have the runtime other, of which" in done.stderr
    assert ": pre (running), stopped" in done.stderr
    assert "until that is killed they do not start: pre (" in done.stderr
    assert "stop those of other that run (docker stop)" in done.stderr
    assert state(docker.host) == before
    docker("exec", "pre", "/bin/true")
    docker("stop", "--time", "0", "pre")
    shim(docker.host, "uninstall docker --force")
    for name in ("pre", "stopped"):  # as the refusal has said
        docker("start", name)


def test_force_says_what_breaks(docker: engines.Docker) -> None:
    """The running containers of an entry with arguments are named: exec in them fails at once."""
    add_other_runtime(docker, default="other")
    shim(docker.host, "install docker --default")
    docker("run", "--detach", *NETLESS, "--name", "pre", image.NAME, "/bin/sleep", "1000")
    refused = shim(docker.host, "uninstall docker", code=2).stderr
    forced = shim(docker.host, "uninstall docker --force").stderr
    for said in (refused, forced):
        assert "1 container was created with the runtime seccomp-shim and would not" in said
        assert "no docker exec works in them any more" in said
        assert "until that is killed they do not start: pre" in said
    assert "no such file" in docker("exec", "pre", "/bin/true", code=126).stdout


def test_an_install_that_takes_arguments_out_breaks_nothing_either(docker: engines.Docker) -> None:
    """The entry loses them where the default runtime that it called is no longer the default."""
    add_other_runtime(docker, default="other")
    shim(docker.host, "install docker")
    started = ("--name", "pre", "--runtime", "seccomp-shim", image.NAME, "/bin/sleep", "1000")
    docker("run", "--detach", *NETLESS, *started)
    document = json.loads(read(docker.host, FILE))
    del document["default-runtime"]
    docker.configure(document)
    done = shim(docker.host, "install docker", code=2)
    assert "the runtime seccomp-shim would lose its arguments" in done.stderr
    docker("exec", "pre", "/bin/true")
    docker("stop", "--time", "0", "pre")
    shim(docker.host, "install docker")
    docker("start", "pre")


@pytest.mark.parametrize("default", ["runc", "other"])
def test_containers_of_a_runtime_we_stand_in_front_of_need_not_be_made_anew(
    docker: engines.Docker, default: str
) -> None:
    """Those that were made before are covered from their next start on, as is said."""
    add_other_runtime(docker, default=default)
    call = ("--name", "pre", "--runtime", "other", image.NAME, image.CALLER, str(TEST_SYSCALL))
    assert docker.calls("run", *NETLESS, *call) == {TEST_SYSCALL: EPERM}
    for said in (
        shim(docker.host, "install docker --runtime other").stderr,
        shim(docker.host, "status docker").stdout,
    ):
        assert "; those of other from their next start on" in said
        assert "made anew" not in said
    assert docker.calls("start", "--attach", "pre") == {TEST_SYSCALL: ENOSYS}
    done = shim(docker.host, "install docker --default")
    assert "not covered: other containers made before, until they are made anew" in done.stderr
    assert "recreate those to be covered, but for those of other\n" in done.stderr
    assert docker.calls("start", "--attach", "pre") == {TEST_SYSCALL: ENOSYS}


@pytest.mark.parametrize("user_land", user_lands.NAMES)
def test_the_former_default_is_what_the_wrapper_calls(
    docker: engines.Docker, user_land: str
) -> None:
    """A default runtime of the admin's keeps being called, with its arguments."""
    replace_daemon(docker, user_land)
    calls_of_other = add_other_runtime(docker, default="other")
    before = state(docker.host)
    shim(docker.host, "install docker --default")
    assert outcome(docker) == ENOSYS
    calls = calls_of_other.read_text().splitlines()
    assert len([call for call in calls if call.startswith("--debug ") and " create " in call]) == 1
    shim(docker.host, "uninstall docker")
    assert state(docker.host) == before
    assert info(docker)["DefaultRuntime"] == "other"


def test_no_reload_leaves_the_daemon_alone_and_status_says_so(docker: engines.Docker) -> None:
    """With --no-reload the daemon is not told, and both verbs say that this is left to do."""
    seen_by_nobody = shim(docker.host, "install docker --dry-run", before=AS_NOBODY).stderr
    assert f"whether a dockerd runs, and with {FILE}, is not seen without root" in seen_by_nobody
    assert "no dockerd runs" not in seen_by_nobody
    done = shim(docker.host, "install docker --no-reload")
    assert "has not been told: kill -HUP" in done.stderr
    assert "seccomp-shim" not in info(docker)["Runtimes"]
    assert "reload or restart it" in shim(docker.host, "status docker", code=1).stdout
    shim(docker.host, "install docker")
    assert "seccomp-shim" in info(docker)["Runtimes"]


@pytest.mark.parametrize("user_land", user_lands.NAMES)
def test_flags_of_the_running_daemon_count(user_land: str) -> None:
    """A default as a flag is a conflict; runtimes as flags, which a reload drops, prevent one."""
    flags = ("--default-runtime", "other", "--add-runtime", "other=/usr/sbin/runc")
    with engines.dockerd(None, *flags) as docker:
        prepare(docker.host)
        replace_daemon(docker, user_land)
        done = shim(docker.host, "install docker --default", code=2)
        assert "the running dockerd" in done.stderr
        assert "has the flag --default-runtime other" in done.stderr
        done = shim(docker.host, "install docker")
        assert "would forget the runtimes of its flag --add-runtime" in done.stderr
        assert "other" in info(docker)["Runtimes"]
        entry = json.loads(read(docker.host, FILE))["runtimes"]["seccomp-shim"]
        assert entry["runtimeArgs"] == ["--real-runtime", "/usr/sbin/runc"]
        docker.stop()
        docker.start()
        assert {"other", "seccomp-shim"} <= info(docker)["Runtimes"].keys()


def test_a_profile_is_refused_where_the_runtime_drops_its_names(docker: engines.Docker) -> None:
    """With an old libseccomp --profile would change nothing: refused, and why."""
    runtime = docker.folder / "knowing"
    version = '{"annotations": {"io.github.seccomp.libseccomp.version": "2.5.4"}}'
    claim(runtime, version)
    docker.configure({"default-runtime": "k", "runtimes": {"k": {"path": str(runtime)}}})
    before = state(docker.host)
    done = shim(docker.host, "install docker --profile", code=2)
    assert "libseccomp 2.5.4, which drops the name uretprobe" in done.stderr
    assert state(docker.host) == before


def claim(runtime: Path, features: str) -> None:
    """Make a runc that answers ``features`` so; what is read there decides, not what is linked."""
    runtime.write_text(
        f'#!/bin/sh\n[ "$1" = features ] && echo \'{features}\' && exit\nexec runc "$@"\n'
    )
    runtime.chmod(0o755)


def test_a_profile_is_written_set_and_rolled_back(docker: engines.Docker) -> None:
    """Where the runtime knows the name, dockerd takes our profile at its next start."""
    runtime = docker.folder / "knowing"
    claim(runtime, '{"annotations": {"io.github.seccomp.libseccomp.version": "2.6.0"}}')
    docker.configure({"default-runtime": "k", "runtimes": {"k": {"path": str(runtime)}}})
    docker.reload()
    before = state(docker.host)
    done = shim(docker.host, "install docker --profile")
    assert "restart dockerd: it reads seccomp-profile at start only" in done.stderr
    profile = json.loads(read(docker.host, FILE))["seccomp-profile"]
    names = json.loads(read(docker.host, profile))["syscalls"][0]["names"]
    assert names == ["uretprobe"]  # uprobe came with libseccomp 2.6.1
    assert f"does not use {profile} yet" in shim(docker.host, "status docker", code=1).stdout
    docker.stop()
    docker.start()
    assert f"name=seccomp,profile={profile}" in info(docker)["SecurityOptions"]
    shim(docker.host, "status docker")
    assert outcome(docker) == EPERM
    shim(docker.host, "uninstall docker")
    assert state(docker.host) == before


def test_a_profile_of_the_admins_own_stays(docker: engines.Docker) -> None:
    """An own seccomp-profile is never replaced: the line says how to add the calls to it."""
    docker.configure({"seccomp-profile": "/etc/docker/mine.json"})
    before = state(docker.host)
    done = shim(docker.host, "install docker --profile", code=2)
    assert "seccomp-shim patch --in-place /etc/docker/mine.json" in done.stderr
    assert state(docker.host) == before
