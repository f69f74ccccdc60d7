"""``seccomp-shim docker run`` and ``create`` against a real dockerd."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.shimmed import ALONE, CALL, RUNTIME, Shimmed, child_of, said, shimmed
from shim.engines.docker import builtin
from support import engines, image
from support.containers import ENOSYS, EPERM, TEST_SYSCALL

RUN = ["run", "--rm", *ALONE]
BY_RUNTIME = f"docker run --runtime {RUNTIME}: "


@pytest.fixture(scope="module")
def started() -> Iterator[Shimmed]:
    """Start the daemon once for all."""
    with shimmed() as shim:
        yield shim


@pytest.fixture
def shim(started: Shimmed) -> Shimmed:
    """Return a daemon that has the wrapper registered, and settings that name a test syscall."""
    started.configure()
    return started


@pytest.fixture
def without(started: Shimmed) -> Shimmed:
    """Return a daemon without the wrapper, whose runtime says that it knows the names."""
    started.configure(wrapper=False, default="capture", test_syscall=False)
    started.capture.taken()
    return started


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Return a profile of the user's own: Docker's, which does not name what is new."""
    own, reason = builtin.profile("20.10.24")
    assert own, reason
    path = tmp_path / "own.json"
    path.write_text(json.dumps(own.tree, indent=3))
    return path


def host_config(shim: Shimmed, *words: str) -> dict[str, object]:
    """Create a container by the verb, give what the daemon made of it, and remove it."""
    ident = shim(*words).stdout.strip()
    text = shim.docker("inspect", "--format", "{{json .HostConfig}}", ident).stdout
    shim.docker("rm", ident)
    found: dict[str, object] = json.loads(text)
    return found


def by_name(seccomp: dict[str, Any]) -> set[tuple[str, str]]:
    """Return each name with what else its rule says."""
    return {
        (name, json.dumps({key: value for key, value in rule.items() if key != "names"}))
        for rule in seccomp["syscalls"]
        for name in rule["names"]
    }


def test_run_names_the_registered_runtime(shim: Shimmed) -> None:
    """Untouched the call is denied; by the verb it is let through, and a line says why."""
    assert shim.docker.calls(*RUN, image.NAME, *CALL) == {TEST_SYSCALL: EPERM}
    done = shim(*RUN, image.NAME, *CALL)
    assert image.outcomes(done.stdout) == {TEST_SYSCALL: ENOSYS}
    assert said(done) == f"{BY_RUNTIME}for test-syscall-{TEST_SYSCALL}"
    lines = shim.log()
    ours = [line for line in lines if line["mechanism"] == "runtime"]
    assert [(line["event"], line["syscall"]) for line in ours] == [
        ("requested", f"test-syscall-{TEST_SYSCALL}")
    ]
    [adjusted] = [line for line in lines if line["event"] == "adjusted"]
    assert (adjusted["mechanism"], len(adjusted["container"])) == ("filter-injection", 64)


@pytest.mark.parametrize("verb", [["create"], ["container", "create"]])
def test_create_does_the_same(shim: Shimmed, verb: list[str]) -> None:
    """What is started later has what it needs, and nothing but the runtime is another."""
    plain = shim.docker("create", "--cap-add", "SYS_PTRACE", image.NAME, "true").stdout.strip()
    text = shim.docker("inspect", "--format", "{{json .HostConfig}}", plain).stdout
    shim.docker("rm", plain)
    made = host_config(shim, *verb, "--cap-add", "SYS_PTRACE", image.NAME, "true")
    assert made == json.loads(text) | {"Runtime": RUNTIME}


@pytest.mark.parametrize(
    "words",
    [
        ["--privileged"],
        ["--security-opt", "seccomp=unconfined"],
        ["--security-opt", "seccomp:unconfined"],
        [f"--runtime={RUNTIME}"],
    ],
)
def test_what_needs_nothing_is_left_alone_in_silence(shim: Shimmed, words: list[str]) -> None:
    """No filter will be there, or the user named our runtime."""
    done = shim("--dry-run", "run", *words, image.NAME)
    line = ["/usr/bin/docker", "run", *words, image.NAME]
    assert (done.stdout, done.stderr) == (f"{' '.join(line)}\n", "")


def test_a_runtime_that_is_not_ours_is_told(shim: Shimmed) -> None:
    """The user's choice stays, and one line says that nothing is adjusted by it."""
    done = shim("--dry-run", "run", "--runtime", "capture", image.NAME)
    assert done.stdout == f"/usr/bin/docker run --runtime capture {image.NAME}\n"
    assert "capture was asked for by name, which is not ours" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_last_profile_counts(shim: Shimmed, profile: Path) -> None:
    """As the daemon has it."""
    confined, unconfined = f"seccomp={profile}", "seccomp=unconfined"
    options = ["--security-opt", unconfined, "--security-opt", confined]
    assert "--runtime" in shim("--dry-run", *RUN, *options, image.NAME).stdout
    options[1::2] = confined, unconfined
    assert "--runtime" not in shim("--dry-run", *RUN, *options, image.NAME).stdout
    options[0::2] = "--privileged=false", "--privileged=false"
    assert "--runtime" in shim("--dry-run", *RUN, *options[:1], image.NAME).stdout


def test_where_none_is_registered_the_profile_is_augmented(without: Shimmed) -> None:
    """That of the daemon's version gets the names; the container is handed just that more."""
    shim = without
    shim.docker(*RUN, image.NAME, "true")
    done = shim("--when", "always", *RUN, image.NAME, "echo", "hi")
    assert done.stdout == "hi\n"
    assert re.fullmatch(
        r"docker run --security-opt seccomp=/run/seccomp-shim/docker/profile-\w{32}\.json: "
        "uretprobe allowed by name",
        said(done),
    )
    before, after = (taken["linux"]["seccomp"] for taken in shim.capture.taken())
    assert by_name(after) - by_name(before) == {("uretprobe", '{"action": "SCMP_ACT_ALLOW"}')}
    assert by_name(before) <= by_name(after)
    assert [(line["event"], line["mechanism"]) for line in shim.log()] == [("requested", "name")]


def test_the_users_profile_is_augmented(without: Shimmed, profile: Path) -> None:
    """Its file stays as it is; a dry run shows the difference and keeps nothing."""
    shim = without
    text = profile.read_text()
    kept = shim.docker.host.run("ls /run/seccomp-shim/docker 2>/dev/null", code=None).stdout
    option = f"seccomp={profile.name}"
    words = ["--when", "always", "--dry-run", *RUN, "--security-opt", option, image.NAME, "env"]
    done = shim(*words, folder=profile.parent)
    line, *diff = done.stdout.splitlines()
    assert line.startswith(
        f"/usr/bin/docker {' '.join(RUN)} --security-opt {option} --security-opt "
    )
    assert line.endswith(f".json {image.NAME} env")
    assert diff[:2] == [f"--- {profile.name}", f"+++ {profile.name}"]
    added = [part for part in diff[2:] if part[:1] in "+-"]
    assert '+        "uretprobe"' in added
    assert all(part.startswith("+") for part in added)
    assert profile.read_text() == text
    after = shim.docker.host.run("ls /run/seccomp-shim/docker 2>/dev/null", code=None).stdout
    assert after == kept


def test_what_is_kept_is_for_its_owner_alone(without: Shimmed) -> None:
    """One file for one content, however often it is needed."""
    shim = without
    for _ in range(2):
        shim("--when", "always", *RUN, image.NAME, "true")
    modes = shim.docker.host.run("stat -c '%U %a' /run/seccomp-shim/docker/*").stdout
    assert set(modes.splitlines()) == {"root 600"}
    assert shim.docker.host.run("stat -c %a /run/seccomp-shim/docker").stdout == "700\n"
    shim.docker.host.run("chmod 777 /run/seccomp-shim/docker")
    done = shim("--when", "always", *RUN, image.NAME, "true")
    shim.docker.host.run("chmod 700 /run/seccomp-shim/docker")
    place = "/run/seccomp-shim/docker: is not ours alone to write to"
    assert said(done) == f"docker run goes as it is: {place}"


def test_a_docker_that_cannot_read_what_is_kept_gets_none_of_it(
    without: Shimmed, tmp_path: Path
) -> None:
    """One from a snap sees another /run and no hidden directories."""
    (tmp_path / "snap").write_text('#!/bin/sh\nexec /usr/bin/docker "$@"\n')
    (tmp_path / "snap").chmod(0o755)
    (tmp_path / "docker").symlink_to("snap")
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = without("--when", "always", *RUN, image.NAME, "echo", "hi", environment=path)
    assert done.stdout == "hi\n"
    assert said(done).endswith("/docker: a docker from a snap cannot read the profile to add")


@pytest.mark.parametrize("text", ["{", "[]", '{"syscalls": [{"name": 1}]}'])
def test_a_profile_that_is_none_is_left_to_docker(shim: Shimmed, tmp_path: Path, text: str) -> None:
    """Docker, or its daemon, refuses it: with the exit status that it has for that."""
    path = tmp_path / "broken.json"
    path.write_text(text)
    words = [*RUN, "--security-opt", f"seccomp={path}", image.NAME, "true"]
    plain = shim.docker(*words, code=None)
    done = shim(*words, code=plain.returncode)
    assert plain.returncode == 125
    assert plain.stderr.splitlines()[0] in done.stderr


def test_what_cannot_be_helped_is_said(started: Shimmed) -> None:
    """The container runs as it would have, or not at all where the admin wants it so."""
    started.configure(wrapper=False)
    done = started(*RUN, image.NAME, *CALL)
    assert image.outcomes(done.stdout) == {TEST_SYSCALL: EPERM}
    assert said(done).startswith(
        f"docker run goes as it is: no profile can name test-syscall-{TEST_SYSCALL}"
    )
    started.configure(wrapper=False, on_error="deny")
    done = started(*RUN, image.NAME, *CALL, code=125)
    assert done.stdout == ""
    assert "(not run: the settings say on_error: deny)" in done.stderr


def test_the_wrapper_does_what_its_kernel_needs_whatever_when_says(shim: Shimmed) -> None:
    """It is what --when adds; here, where no profile can deny the calls, it changes nothing."""
    shim.configure(test_syscall=False)
    done = shim("--when", "always", *RUN, image.NAME, *CALL)
    assert said(done) == f"{BY_RUNTIME}for uretprobe, uprobe"
    assert image.outcomes(done.stdout) == {TEST_SYSCALL: EPERM}
    assert {line["event"] for line in shim.log()} == {"requested"}


def test_what_the_runtime_refuses_by_itself_is_no_error_of_ours(shim: Shimmed) -> None:
    """With so few open files runc loads no filter: its message and status, and no attention."""
    words = [*RUN, "--ulimit", "nofile=8:8", image.NAME, *CALL]
    plain = shim.docker(*words, code=125)
    done = shim(*words, code=125)
    refused = "too many open files"
    assert (refused in plain.stderr, refused in done.stderr) == (True, True)
    assert [(line["event"], line["level"]) for line in shim.log()] == [
        ("requested", "info"),
        ("left-alone", "info"),
    ]


def test_what_cannot_be_logged_is_not_done(shim: Shimmed) -> None:
    """A log that cannot be written leaves the container as it was asked for, and says so."""
    shim.configure(log=f"{shim.docker.folder}/nowhere/audit.jsonl")
    done = shim(*RUN, image.NAME, *CALL)
    assert image.outcomes(done.stdout) == {TEST_SYSCALL: EPERM}
    assert said(done).endswith("nowhere/audit.jsonl: No such file or directory")


@pytest.mark.parametrize("how", ["option", "variable", "context", "current"])
def test_the_daemon_is_the_one_that_docker_would_ask(shim: Shimmed, how: str) -> None:
    """Named by -H, by a context or by the environment."""
    address = f"unix://{shim.docker.socket}"
    docker = shim.docker
    docker("context", "create", "there", f"--docker=host={address}", code=None)
    docker("context", "use", "there" if how == "current" else "default")
    before, variables = {
        "option": (["-H", address], {}),
        "variable": ([], {"DOCKER_HOST": address}),
        "context": (["--context=there"], {}),
        "current": ([], {}),
    }[how]
    environment = {**shim.environment}
    del environment["DOCKER_HOST"]
    done = Shimmed(docker, shim.capture, environment)(
        *before, *RUN, image.NAME, *CALL, environment=variables
    )
    docker("context", "use", "default")
    assert image.outcomes(done.stdout) == {TEST_SYSCALL: ENOSYS}
    assert said(done).startswith(BY_RUNTIME)


def test_a_daemon_elsewhere_gets_the_runtime_that_it_has() -> None:
    """Over TCP nothing is taken for known of its kernel: the wrapper there finds out."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    config = {"runtimes": {RUNTIME: {"path": "/usr/sbin/runc"}}}
    with engines.dockerd(config, "--host", address, "--tls=false") as docker:
        environment = {"DOCKER_HOST": address, "DOCKER_CONFIG": f"{docker.folder}/client"}
        shim = Shimmed(docker, None, environment)  # type: ignore[arg-type]  # captures nothing
        docker.host.run("mkdir -p /var/log/seccomp-shim")
        done = shim(*RUN, image.NAME, "echo", "hi")
        assert (done.stdout, said(done)) == ("hi\n", f"{BY_RUNTIME}for uretprobe, uprobe")


def test_the_terminal_is_dockers(shim: Shimmed) -> None:
    """``run -it`` has one, and its exit status arrives."""
    script = "test -t 0 && test -t 1 && echo terminal; exit 7"
    code, text = image.at_terminal(
        shim.command("run", "-it", *RUN[1:], image.NAME, "sh", "-c", script)
    )
    assert code == 7
    assert "terminal" in text
    assert BY_RUNTIME in text


def test_ctrl_c_at_the_terminal_reaches_the_container(shim: Shimmed) -> None:
    """As it does without us in between."""
    script = "trap 'exit 42' INT; echo ready; while :; do sleep 1; done"
    ours, theirs = pty.openpty()
    command = shim.command("run", "-it", *RUN[1:], image.NAME, "sh", "-c", script)
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        while b"ready" not in seen:
            seen += os.read(ours, 4096)
        os.write(ours, b"\x03")
        assert process.wait(30) == 42
    os.close(ours)


def test_signals_reach_the_container(shim: Shimmed) -> None:
    """The process that was started is docker itself by now, which hands them on."""
    script = "trap 'exit 43' TERM; echo ready; while :; do sleep 1; done"
    command = shim.command(*RUN, image.NAME, "sh", "-c", script)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        os.kill(child_of(process.pid), signal.SIGTERM)
        assert process.wait(30) == 43


def test_a_user_has_a_log_and_a_cache_of_his_own(without: Shimmed) -> None:
    """Who may talk to the daemon need not be root."""
    shim = without
    home = shim.docker.folder / "home"
    home.mkdir()
    os.chown(home, 7000, 7000)
    shim.docker.folder.chmod(0o755)
    shim.docker.socket.chmod(0o666)
    command = shim.command("--when", "always", *RUN, image.NAME, "echo", "hi", HOME=str(home))
    as_user = ["setpriv", "--reuid=7000", "--regid=7000", "--clear-groups"]
    enter = len(shim.docker.host.enter)
    done = subprocess.run(
        [*command[:enter], *as_user, *command[enter:]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr
    [kept] = (home / ".cache/seccomp-shim/docker").iterdir()
    assert said(done).startswith(f"docker run --security-opt seccomp={kept}: ")
    [line] = (home / ".local/state/seccomp-shim/audit.jsonl").read_text().splitlines()
    assert json.loads(line)["event"] == "requested"
