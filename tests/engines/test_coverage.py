"""Who is covered after an installation, and who is not: told, asked for, and never made up."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from engines import registration
from engines.registration import install
from engines.verbs import FILE, LOG, read, shim, state, write
from support.checkout import CHECKOUT
from support.host import Host

PLAIN = "not covered: a plain docker run"
RUNTIME_CLASS = CHECKOUT / "deploy/kubernetes/base/runtimeclass.yaml"


@pytest.fixture
def host(view: Host) -> Iterator[Host]:
    """Yield the view with nothing registered."""
    view.run(f"rm -rf {FILE} /var/lib/seccomp-shim")
    yield view
    view.run("rm -f /run/seccomp-shim/probe.json")


def at_a_terminal(host: Host, line: str, answer: str, code: int = 0) -> str:
    """Run the program in the view with a terminal, on which ``answer`` is typed; give its words."""
    ours, theirs = os.openpty()
    script = f"cd / && exec {sys.executable} -P -m shim {line}"
    environment = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/sbin:/usr/bin"}
    with subprocess.Popen(
        [*host.enter, "sh", "-c", script],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
    ) as process:  # fmt: skip
        os.close(theirs)
        os.write(ours, answer.encode())
        words = b""
        try:
            while part := os.read(ours, 4096):
                words += part
        except OSError:
            pass  # EIO: nobody has the other end any more
    os.close(ours)
    assert process.returncode == code, words
    return words.decode()


def default(host: Host) -> object:
    """Return Docker's default runtime as the file says it."""
    return json.loads(read(host, FILE)).get("default-runtime")


def test_without_a_terminal_it_is_told_what_is_left_out(host: Host) -> None:
    """The obvious command says that a plain `docker run` is not covered, and what to add."""
    for more in (" --dry-run", "", " --no-default"):
        said = shim(host, f"install docker{more}").stderr
        assert PLAIN in said
        assert "to cover these as well: seccomp-shim install docker --default" in said
    assert default(host) is None
    told = shim(host, "status docker").stdout
    assert "registered for some containers only" in told
    assert PLAIN in told
    said = shim(host, "install docker --default").stderr
    assert "covered: every container that is created from now on, and exec into it" in said
    assert PLAIN not in said
    assert "registered, the default runtime" in shim(host, "status docker").stdout


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("\n", "seccomp-shim"),
        ("y\n", "seccomp-shim"),
        ("n\n", None),
        ("foo\nfo\nno\n", None),
        ("foo\nYES\n", "seccomp-shim"),
    ],
)
def test_on_a_terminal_it_asks(host: Host, answer: str, chosen: str | None) -> None:
    """Who only types return has all containers covered; what is neither yes nor no is no answer."""
    said = at_a_terminal(host, "install docker", answer)
    assert said.count("cover these as well (--default)? [Y/n]") == answer.count("\n")
    assert said.count("please answer y or n") == answer.count("\n") - 1
    assert default(host) == chosen
    before, _, after = said.rpartition("[Y/n]")
    assert (PLAIN in after) == (chosen is None)
    for diff in before.split("with --default instead:"):
        assert "+++ /etc/docker/daemon.json" in diff
        assert '"seccomp-shim": {' in diff
    assert '"default-runtime": "seccomp-shim"' in diff
    assert "+++ " not in after


@pytest.mark.parametrize("answer", ["\x04", "foo\n\x04", "foo\nbar\n?\n"])
def test_what_is_not_answered_changes_nothing(host: Host, answer: str) -> None:
    """End of file is no answer, and neither is what was no answer three times."""
    before = state(host)
    said = at_a_terminal(host, "install docker", answer, code=1)
    assert said.endswith("docker: not answered: nothing was changed\r\n")
    assert state(host) == before


def test_nobody_is_asked_for_what_cannot_be(host: Host) -> None:
    """A default runtime that cannot be wrapped stays; why is told, and the rest is done."""
    write(host, FILE, b'{"default-runtime": "io.containerd.kata.v2"}')
    said = at_a_terminal(host, "install docker", "\x04")
    assert "[Y/n]" not in said
    assert "these cannot be covered as well (--default): /etc/docker/daemon.json: " in said
    assert default(host) == "io.containerd.kata.v2"
    assert "seccomp-shim" in json.loads(read(host, FILE))["runtimes"]


def test_lines_of_the_log_are_not_for_the_terminal(host: Host) -> None:
    """What is done is said in a person's words there; the log has the sums."""
    for line in ("install docker --default", "uninstall docker"):
        said = at_a_terminal(host, line, "")
        assert "/etc/docker/daemon.json" in said
        assert "sha256" not in said
        assert "\x1b" not in said
    assert "sha256_after" in host.run(f"tail -n 2 {LOG}").stdout


@pytest.mark.parametrize("words", ["--no-default", "--default", "--dry-run"])
def test_who_has_said_it_is_not_asked(host: Host, words: str) -> None:
    """Nor is who only looks."""
    assert "[Y/n]" not in at_a_terminal(host, f"install docker {words}", "\n")


def test_status_is_loud_where_the_kernel_kills_who_is_left_out(host: Host) -> None:
    """Registered for some is not enough there; for all it is."""
    write(host, FILE, b"{}")
    shim(host, "probe")
    host.run('sed -i \'s/"exempt"/"filtered"/\' /run/seccomp-shim/probe.json')
    shim(host, "install docker")
    told = shim(host, "status docker", code=1).stdout
    assert "ATTENTION  docker: this kernel kills containers over uretprobe" in told
    assert "(a plain docker run, and all else that does not name such a runtime)" in told
    assert "seccomp-shim install docker --default" in told
    shim(host, "install docker --default")
    assert "ATTENTION" not in shim(host, "status docker").stdout


@pytest.mark.parametrize("engine", ["containerd", "crio"])
def test_pods_need_the_label_that_the_runtime_class_asks_for(tmp_path: Path, engine: str) -> None:
    """The next steps name it: without, a pod of the class finds no node."""
    registration.program(tmp_path / "bin", "runc", "exit 1")
    plan = install(engine, registration.host(tmp_path, str(tmp_path / "bin")))
    steps = "\n".join(plan.next_steps)
    document = yaml.safe_load(RUNTIME_CLASS.read_text())
    for label, value in document["scheduling"]["nodeSelector"].items():
        assert f"kubectl label node NODE {label}={value}" in steps
    assert f"runtimeClassName: {document['metadata']['name']}" in steps
    assert not plan.coverage.plain
    assert "pods without a RuntimeClass" in plan.coverage.left_out


@pytest.mark.parametrize("engine", ["containerd", "crio"])
def test_the_default_handler_covers_pods_that_ask_for_none(tmp_path: Path, engine: str) -> None:
    """What the plan says is what status says afterwards, without a next step for a class."""
    registration.program(tmp_path / "bin", "runc", "exit 1")
    host = registration.host(tmp_path, str(tmp_path / "bin"))
    plan = install(engine, host, "--default")
    told = registration.status(engine, host)
    assert plan.coverage.plain
    assert tuple(plan.coverage) == (told["covers"], told["not_covered"], told["covers_all"])
    assert "RuntimeClass" not in "".join(plan.next_steps)
