"""The verb docker in front of stand-ins for it: nothing is lost on the way to the real one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.checkout import CHECKOUT

SHIM = [sys.executable, "-m", "shim"]
# What it was given, as it is in memory.
SHOWS = '#!/bin/sh\nprintf "%s\\0" "$@"\nexit 7\n'
# Nobody's settings, and a daemon that is not there.
NOBODY = {"HOME": "/nonexistent", "DOCKER_HOST": "unix:///nonexistent"}
Done = subprocess.CompletedProcess[bytes]
Put = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a docker that shows its arguments and ends with 7."""
    folder = tmp_path_factory.mktemp("bin")
    put(folder, SHOWS)
    return folder


def put(folder: Path, text: str, name: str = "docker") -> Path:
    """Make an executable ``name`` in ``directory``."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def run(folders: str | Path, *words: str | bytes, **options: Any) -> Done:
    """Run the verb with ``words``, the PATH being ``directories`` and the system's own after it."""
    environment = {"PATH": f"{folders}:/usr/bin:/bin", **NOBODY, **options.pop("env", {})}
    return subprocess.run(
        [*SHIM, "docker", *words],
        env=environment,
        capture_output=True,
        check=False,
        cwd=CHECKOUT,
        **options,
    )


ANY = st.binary(max_size=5).filter(lambda word: b"\0" not in word)
OTHERS = st.sampled_from([b"ps", b"exec", b"-D", b"-it", b"--rm", b"container", b"ls", b"-H"])


@settings(max_examples=25)
@given(st.lists(st.one_of(ANY, OTHERS), min_size=1, max_size=5))
def test_what_starts_nothing_arrives_as_it_is(place: Path, words: list[bytes]) -> None:
    """Every byte of every word, whatever it looks like, and the exit status comes back."""
    done = run(place, b"ps", *words)
    assert done.stdout == b"".join(word + b"\0" for word in (b"ps", *words))
    assert (done.returncode, done.stderr) == (7, b"")


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C"}, {"LANG": "C.UTF-8", "LC_CTYPE": "C"}])
def test_the_environment_arrives_as_it_is(tmp_path: Path, locale: dict[str, str]) -> None:
    """Also in the C locale, where Python itself adds to it."""
    put(tmp_path, "#!/bin/sh\ntr '\\0' '\\n' </proc/$$/environ\n")
    extra = {"A": "=b\udcff", "SECRET": "x y", **locale}
    done = run(tmp_path, "ps", env=extra)
    given_ = {"PATH": f"{tmp_path}:/usr/bin:/bin", **NOBODY, **extra}
    lines = {os.fsencode(f"{name}={value}") for name, value in given_.items()}
    assert set(done.stdout.splitlines()) == lines


def test_standard_input_and_the_process_are_dockers(tmp_path: Path) -> None:
    """It is the very process that was started, with its descriptors: nobody stands in between."""
    put(tmp_path, "#!/bin/sh\necho $$\nexec cat\n")
    with subprocess.Popen(
        [*SHIM, "docker", "load"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        output, _ = process.communicate(b"a tar file")
    assert output == b"%d\na tar file" % process.pid


def test_signals_are_as_the_caller_had_them(tmp_path: Path) -> None:
    """Nothing that Python ignores stays ignored: docker ends when its reader is gone."""
    put(tmp_path, "#!/bin/sh\ngrep SigIgn /proc/$$/status\n")
    done = run(tmp_path, "ps", restore_signals=True)
    assert done.stdout.split() == [b"SigIgn:", b"0" * 16]


def test_a_signal_that_ends_docker_is_seen(tmp_path: Path) -> None:
    """A shell that waits for it sees the signal, not an exit status made of it."""
    put(tmp_path, "#!/bin/sh\nkill -TERM $$\n")
    assert run(tmp_path, "ps").returncode == -15


def test_the_real_docker_is_found_behind_ourselves(tmp_path: Path) -> None:
    """A link to us and a script that calls us are passed over: there is no loop."""
    shim = put(tmp_path, f"#!{sys.executable}\nimport shim.cli\nshim.cli.main()\n", "us")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/docker").symlink_to(shim)
    put(tmp_path / "b", '#!/bin/sh\nexec seccomp-shim docker "$@"\n')
    (tmp_path / "c/docker").mkdir(parents=True)
    put(tmp_path / "d", SHOWS).chmod(0o644)
    put(tmp_path / "e", SHOWS)
    folders = ":".join(str(tmp_path / name) for name in "abcde")
    environment = {"PATH": f"{folders}:/usr/bin:/bin", "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [shim, "docker", "ps"], env=environment, capture_output=True, timeout=20, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"ps\0", b"", 7)


def test_no_docker_is_said_as_a_shell_says_it(tmp_path: Path) -> None:
    """One line, and the exit status for a command that is not there."""
    done = run(tmp_path, "ps", env={"PATH": str(tmp_path)})
    assert done.returncode == 127
    assert done.stderr == (
        b"seccomp-shim docker: there is no docker on PATH (this only stands in front of one)\n"
    )


def test_a_docker_that_cannot_be_executed_is_said(tmp_path: Path) -> None:
    """One line, and the exit status for a command that is there but will not start."""
    put(tmp_path, "#!/nonexistent\n")
    done = run(tmp_path, "ps")
    assert done.returncode == 126
    assert done.stderr == (
        b"seccomp-shim docker: %s/docker: cannot be started: No such file or directory\n"
        % str(tmp_path).encode()
    )


def test_our_own_options_come_first(place: Path) -> None:
    """They are taken off before docker's words, where the same words are docker's."""
    done = run(place, "--quiet", "--when=always", "--when", "present", "ps", "--when", "--quiet")
    assert done.stdout == b"ps\0--when\0--quiet\0"
    assert run(place, "--when", "ps").returncode == 2
    assert run(place, "--when").stderr == (
        b"seccomp-shim docker: --when: must be one of needed, present, always\n"
    )


def test_a_dry_run_prints_the_line_for_a_shell(place: Path) -> None:
    """Quoted where that is called for; nothing runs."""
    done = run(place, "--dry-run", "exec", "c", "echo", "a b", "$x")
    assert done.stdout == f"{place}/docker exec c echo 'a b' '$x'\n".encode()
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("error", ["2>&-", "2>/dev/full", "1>&- 2>&-"])
def test_a_standard_error_that_takes_nothing_stops_nobody(tmp_path: Path, error: str) -> None:
    """What cannot be said is not said, and nothing of it goes anywhere else."""
    put(tmp_path, UNKNOWN.format(cases=f'run*) echo "$@" >{tmp_path}/ran ;;'))
    script = f'"$@" run --rm bb {error}'
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **NOBODY}
    command = ["sh", "-c", script, "sh", *SHIM, "docker"]
    done = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert (tmp_path / "ran").read_text() == "run --rm bb\n"


def test_a_dry_run_whose_reader_is_gone_ends_quietly(place: Path) -> None:
    """As when head has seen enough of it."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {"PATH": f"{place}:/usr/bin:/bin", **NOBODY}
    done = subprocess.run(
        [*SHIM, "docker", "--dry-run", "ps"],
        env=environment,
        cwd=CHECKOUT,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_shows_dockers_and_ours(place: Path) -> None:
    """Docker's on standard output, which an alias asks for; ours beside it."""
    done = run(place, "--help")
    assert (done.returncode, done.stdout) == (7, b"--help\0")
    assert done.stderr.startswith(b"\nusage: seccomp-shim docker ")
    quiet = run(place, "--quiet", "--help", "run")
    assert (quiet.stdout, quiet.stderr) == (b"--help\0run\0", b"")


def test_help_needs_no_docker(tmp_path: Path) -> None:
    """Ours is shown all the same."""
    done = run(tmp_path, "--help", env={"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"usage: seccomp-shim docker " in done.stderr


UNKNOWN = "#!/bin/sh\ncase $1$2$3 in\n{cases}\n*) printf '%s\\0' \"$@\"; exit 7 ;;\nesac\n"


@pytest.mark.parametrize(
    ("cases", "reason"),
    [
        ("info*) echo '{}' ;;", "what answers is no Docker daemon"),
        ("info*) echo podman ;;", "docker info printed no JSON"),
        ("info*) echo no daemon >&2; exit 1 ;;", "no daemon"),
        ('info*) echo \'{"ServerVersion": ""}\'; echo no daemon >&2 ;;', "no daemon"),
        ('info*) echo \'{"ServerErrors": ["no daemon"]}\' ;;', "no daemon"),
        ("info*) kill -9 $$ ;;", "docker info printed no JSON"),
    ],
)
def test_a_daemon_that_is_not_understood_gets_the_command_as_it_is(
    tmp_path: Path, cases: str, reason: str
) -> None:
    """One line says so, and the command runs: it is never refused on our account."""
    put(tmp_path, UNKNOWN.format(cases=cases))
    done = run(tmp_path, "run", "--rm", "bb", "echo")
    assert (done.returncode, done.stdout) == (7, b"run\0--rm\0bb\0echo\0")
    assert done.stderr == f"seccomp-shim: docker run goes as it is: {reason}\n".encode()
    assert run(tmp_path, "--quiet", "run", "bb").stderr == b""


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["run", "--privileged=maybe", "bb"], "--privileged: neither true nor false: maybe"),
        (["run", "--name"], "--name: needs a value"),
        (["create", "--zeal", "\x1b[2J", "bb"], "--zeal: is no option known here"),
    ],
)
def test_options_that_are_not_understood_go_as_they_are(
    place: Path, words: list[str], reason: str
) -> None:
    """One line says so; docker knows best what is wrong with them, or newer than us."""
    done = run(place, *words)
    assert done.stdout == "".join(f"{word}\0" for word in words).encode()
    assert done.stderr == f"seccomp-shim: docker {words[0]} goes as it is: {reason}\n".encode()


def test_a_newer_dockers_option_is_asked_for(tmp_path: Path) -> None:
    """The client's own help tells whether an option that is not known here takes a value."""
    cases = "run--help) echo '      --zeal string   Zealously' ;;\ninfo*) echo asked; exit 1 ;;"
    put(tmp_path, UNKNOWN.format(cases=cases))
    done = run(tmp_path, "run", "--zeal", "--rm", "bb")
    assert done.stdout == b"run\0--zeal\0--rm\0bb\0"
    assert done.stderr == b"seccomp-shim: docker run goes as it is: docker info printed no JSON\n"


def imported(code: str, *words: str, place: Path) -> set[str]:
    """Return what an interpreter that runs ``code`` imports until it ends or becomes another."""
    command = [sys.executable, "-I", "-X", "importtime", "-c", code, *words]
    environment = {"PATH": f"{place}:/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_what_passes_through_waits_for_few_imports(place: Path) -> None:
    """Each ``docker ps`` pays for the modules that it needs, and those are a handful of ours."""
    bare = imported("import os", place=place)
    code = "from shim.cli import main; main()"
    extra = imported(code, "docker", "ps", place=place) - bare
    assert extra == {
        *("shim", "shim.cli", "shim.cli.docker", "shim.errors"),
        *("shim.engines", "shim.engines.docker", "shim.engines.docker.commandline"),
        *("shim.engines.docker.passthrough", "shim.start"),
        *("shim.lightos", "shim.start.wrapper", "shim.start.wrapper.exec_runtime"),
    }
