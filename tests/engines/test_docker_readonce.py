"""A profile from a pipe, ``seccomp=<(command)``: read by us, and there for docker all the same."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.shimmed import ALONE, RUNTIME, Shimmed, said, shimmed
from shim.engines.docker import builtin, readonce
from shim.engines.docker.passthrough import SpentError
from shim.errors import ShimError
from support import image
from support.containers import ENOSYS, EPERM, TEST_SYSCALL

GETPRIORITY = 140
CALLS = [image.CALLER, str(TEST_SYSCALL), str(GETPRIORITY)]


@pytest.fixture(scope="module")
def shim() -> Iterator[Shimmed]:
    """Start a daemon that has the wrapper registered."""
    with shimmed() as started:
        started.configure()
        yield started


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Make Docker's profile without one of its calls: that shows which profile is in force."""
    own, reason = builtin.profile("20.10.24")
    assert own, reason
    tree = json.loads(json.dumps(own.tree))
    for rule in tree["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name != "getpriority"]
    path = tmp_path / "own.json"
    path.write_text(json.dumps(tree))
    return path


def bash(script: str, command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run ``script``, whose "$@" is ``command``."""
    words = ["bash", "-c", script, "bash", *command]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("path", ["/dev/fd/9", "/proc/self/fd/9"])
def test_a_profile_from_a_pipe_is_handed_on(shim: Shimmed, profile: Path, path: str) -> None:
    """The container has it, and what it lacks: both read the pipe to its end."""
    command = shim.command("run", "--rm", *ALONE, "--security-opt", f"seccomp={path}")
    done = bash(f'exec 9< <(cat {profile}); exec "$@"', [*command, image.NAME, *CALLS])
    assert said(done) == f"docker run --runtime {RUNTIME}: for test-syscall-{TEST_SYSCALL}"
    assert image.outcomes(done.stdout) == {TEST_SYSCALL: ENOSYS, GETPRIORITY: EPERM}


def test_a_profile_from_standard_input_is_handed_on(shim: Shimmed, profile: Path) -> None:
    """And the container finds nothing more there, as without us."""
    words = ["run", "--rm", "-i", *ALONE, "--security-opt", "seccomp=/dev/stdin", image.NAME]
    script = f'cat {profile} | "$@"'
    inside = ["sh", "-c", f"cat; {' '.join(CALLS)}"]
    plain = bash(script, shim.docker.command(*words, *inside))
    done = bash(script, shim.command(*words, *inside))
    assert plain.stdout == f"{TEST_SYSCALL} {EPERM}\n{GETPRIORITY} {EPERM}\n"
    assert done.stdout == f"{TEST_SYSCALL} {ENOSYS}\n{GETPRIORITY} {EPERM}\n"


def test_a_profile_from_a_pipe_is_augmented(shim: Shimmed, profile: Path) -> None:
    """Docker's client reads both, the one from the pipe and the one behind it, which counts."""
    shim.configure(wrapper=False, default="capture", test_syscall=False)
    words = ["--when", "always", "run", "--rm", *ALONE, "--security-opt", "seccomp=/dev/fd/9"]
    command = shim.command(*words, image.NAME, "true")
    done = bash(f'exec 9< <(cat {profile}); exec "$@"', command)
    shim.configure()
    assert done.returncode == 0, done.stderr
    assert said(done).endswith("uretprobe allowed by name")
    [document] = shim.capture.taken()
    names = {name for rule in document["linux"]["seccomp"]["syscalls"] for name in rule["names"]}
    assert {"uretprobe", "getpriority"} & names == {"uretprobe"}


def test_what_is_no_profile_is_dockers_to_refuse(shim: Shimmed) -> None:
    """With its own words and its own exit status, also where the pipe is empty."""
    for content in ("true", "echo '{'"):
        words = ["create", "--security-opt", "seccomp=/dev/fd/9", image.NAME]
        script = f'exec 9< <({content}); exec "$@"'
        plain = bash(script, shim.docker.command(*words))
        done = bash(script, shim.command(*words))
        assert plain.returncode == done.returncode == 125
        assert plain.stderr.splitlines()[0] in done.stderr


def test_too_much_of_it_ends_docker_before_it_begins(shim: Shimmed) -> None:
    """What was read is gone, and nobody wants more kept: the line says so."""
    command = shim.command("run", "--security-opt", "seccomp=/dev/fd/9", image.NAME)
    done = bash('exec 9< <(yes); exec "$@"', command)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "seccomp-shim docker: /dev/fd/9: has more than 2 MiB\n"


@pytest.mark.parametrize("begun", [b"", b"{"])
def test_who_writes_too_late_is_not_waited_for(
    begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing was read yet docker may wait for itself; where something was, it cannot."""
    monkeypatch.setattr(readonce, "_SECONDS", 0.05)
    ours, theirs = os.pipe()
    os.write(theirs, begun)
    with pytest.raises(SpentError if begun else ShimError, match="had not ended after") as caught:
        readonce.read(f"/dev/fd/{ours}", 1 << 20)
    assert isinstance(caught.value, SpentError) == bool(begun)
    os.close(ours)
    os.close(theirs)


def test_a_slow_writer_is_waited_for() -> None:
    """More than a pipe holds comes in pieces; the descriptor then gives it again and again."""
    data = b"x" * 300_000
    ours, theirs = os.pipe()

    def write() -> None:
        with open(theirs, "wb", buffering=0) as file:
            file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    assert readonce.read(f"/proc/self/fd/{ours}", 1 << 20) == data
    writer.join()
    for _ in range(2):
        assert Path(f"/dev/fd/{ours}").read_bytes() == data
    assert os.read(ours, 1) == b""
    assert os.get_inheritable(ours)
    os.close(ours)


def test_what_is_no_pipe_of_ours_is_left_to_docker(tmp_path: Path) -> None:
    """A FIFO by its own name, a device: what is read of it is not put back."""
    os.mkfifo(tmp_path / "fifo")
    for path in (str(tmp_path / "fifo"), "/dev/zero"):
        with pytest.raises(ShimError, match="is no regular file"):
            readonce.read(path, 1 << 20)
