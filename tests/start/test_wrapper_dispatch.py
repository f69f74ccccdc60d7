"""The wrapper's shell part: what it hands to whom. Nobody's command line may be changed by it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import shim
from shim.engines.registration import hookfile
from support import need
from support.wrapped import Recorder, apart, script

PASSED = [
    ["state", "c1"],
    ["start", "create"],
    ["kill", "run", "9"],
    ["delete", "--force", "exec"],
    ["--root", "/r", "--log", "/l", "--log-format", "json", "state", "c1"],
    ["--root=/r", "--log=/l", "--log-format=json", "kill", "c1", "KILL"],
    ["--root", "create", "state", "c1"],
    ["--log", "run", "--root=exec", "delete", "create"],
    ["-root", "create", "list"],
    ["--debug", "--systemd-cgroup", "ps", "c1"],
    ["--rootless", "auto", "--criu", "run", "checkpoint", "c1"],
    ["--cgroup-manager", "create", "--log-level", "debug", "list"],
    ["--log", "--root", "state", "c1"],
    ["--", "state", "create"],
    ["features"],
    ["--version"],
    ["-v"],
    ["--help", "create"],
    ["--version", "create", "c1"],
    ["-?", "run"],
    [],
    [""],
    ["no-such-verb", "create"],
    ["--no-such-option", "state", "c1"],
    ["--no-such-option=create", "state", "c1"],
    ["--no-such-option", "value", "delete", "c1"],
    ["events", "--stats", "a b", "c\nd", "*", "'", '"', "\\", "$HOME", "-n", ""],
]
LOOKED_AT = [
    ["create", "--bundle", "/b", "c1"],
    ["create", "--bundle", "create", "state"],
    ["--root", "state", "run", "c1"],
    ["--root", "create", "create", "--bundle", "run", "--pid-file", "/p", "exec"],
    ["--log", "/l", "--log-format", "json", "restore", "c1"],
    ["--debug", "--systemd-cgroup", "--rootless=true", "run", "-d", "c1"],
    ["--", "create", "c1"],
    ["-log", "/l", "create", "c1"],
    ["--no-such-option", "create", "c1"],
    ["--no-such-option", "state", "create", "c1"],
    ["--roo", "/r", "run", "c1"],
    ["-xv", "run", "c1"],
]


@pytest.mark.parametrize("args", PASSED, ids=" ".join)
def test_what_starts_nothing_goes_straight_to_the_runtime(
    recorder: Recorder, args: list[str]
) -> None:
    """Every argument arrives as it was, and no interpreter is started."""
    done = recorder.call(*args)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert recorder.received() == args
    assert not recorder.interpreted()


@pytest.mark.parametrize("args", LOOKED_AT, ids=" ".join)
def test_what_may_start_something_is_looked_at_first(recorder: Recorder, args: list[str]) -> None:
    """The interpreter sees the command line, and then the runtime gets it as it was."""
    done = recorder.call(*args, "--test-syscall", "9")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert recorder.received() == [*args, "--test-syscall", "9"]
    assert recorder.interpreted()


def test_exec_becomes_the_runtime_by_way_of_the_interpreter(recorder: Recorder) -> None:
    """For exec the interpreter itself is to become the runtime: the shell does not come back."""
    recorder.call("--root", "/r", "exec", "c1", "create")
    assert recorder.received() is None
    assert recorder.interpreted()


@pytest.mark.parametrize("verb", ["create", "exec", "state"])
def test_an_option_that_nobody_knows_does_no_harm(tmp_path: Path, verb: str) -> None:
    """The runtime is executed once, by the process that was called, with all that it was given."""
    need.root()
    recorder = Recorder(tmp_path)
    hookfile.render(Path(recorder.wrapper), name="seccomp-shim-runtime")
    apart(Path(recorder.wrapper), recorder.cache)
    script(Path(recorder.real), 'echo $$ "$@"; cat')
    (tmp_path / "config.json").write_text("{}")
    args = ["--no-such-option", verb, "run"]
    command = [recorder.wrapper, "--config", "/none", "--real-runtime", recorder.real, *args]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        output, _ = process.communicate("what is on standard input\n")
    assert output == f"{process.pid} {' '.join(args)}\nwhat is on standard input\n"


@pytest.mark.parametrize("code", [0, 1, 2, 42, 127])
def test_the_exit_status_is_the_runtimes_own(recorder: Recorder, code: int) -> None:
    """Whatever the runtime ends with is what the engine sees, with and without a look."""
    script(Path(recorder.real), f"exit {code}")
    assert recorder.call("state", "c1").returncode == code
    assert recorder.call("create", "c1").returncode == code


def test_a_signal_reaches_and_ends_the_runtime(recorder: Recorder) -> None:
    """The process that the engine started is the runtime, so signals and its end are its own."""
    script(Path(recorder.real), "echo $$; exec sleep 1000")
    command = [recorder.wrapper, "--config", "/none", "--real-runtime", recorder.real, "run", "c"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM


def test_open_files_environment_and_folder_are_the_runtimes_own(recorder: Recorder) -> None:
    """Standard input, descriptors, environment and directory arrive as the engine gave them."""
    program = recorder.folder / "real.py"
    program.write_text(f"""
import json, os
with open(3) as third, open(0) as first, open({str(recorder.calls)!r}, "w") as out:
    json.dump([third.read(), first.read(), dict(os.environ), os.getcwd()], out)
""")
    script(Path(recorder.real), f"exec {sys.executable} -IS {program}")
    given = {"PATH": "/usr/bin:/bin", "word": "1", "name": "2", "log": "a b", "shim_real": "x"}
    for name in ("first", "third"):
        (recorder.folder / name).write_text(name)
    for verb in ("state", "create"):
        recorder.run(
            *("/bin/sh", "-c", 'exec "$@" <first 3<third', "sh", recorder.wrapper),
            *("--config", "/none", "--real-runtime", recorder.real, verb),
            env=given,
            cwd=recorder.folder,
        )
        third, first, environment, folder = json.loads(recorder.calls.read_text())
        assert (third, first, folder) == ("third", "first", str(recorder.folder))
        # Ours; the recording interpreter's; what dash, and what bash as sh adds.
        for name in ("SECCOMP_SHIM_DEPTH", "LC_CTYPE", "PWD", "SHLVL", "_"):
            environment.pop(name, None)
        assert {**environment, "shim_real": "x"} == given


# --- which runtime ---------------------------------------------------------------------------


def named(folder: Path, name: str, text: str = "") -> str:
    """Write a program of that name which prints who it is."""
    folder.mkdir(exist_ok=True)
    return script(folder / name, f"echo {text or folder.name}/{name}")


def found(recorder: Recorder, program: str, *args: str, path: str) -> str:
    """Call ``program`` with PATH ``path`` and give what the runtime it found printed."""
    done = recorder.run(
        program, "--config", str(recorder.config), *args, "state", env={"PATH": path}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_first_of_runc_and_crun_on_path_is_taken(recorder: Recorder) -> None:
    """Of both, runc wherever it is; directories come in PATH's order."""
    first, second = recorder.folder / "first", recorder.folder / "second"
    named(first, "crun")
    path = f"{first}:{second}"
    named(second, "runc")
    assert found(recorder, recorder.wrapper, path=path) == "second/runc"
    named(first, "runc")
    assert found(recorder, recorder.wrapper, path=path) == "first/runc"
    assert found(recorder, recorder.wrapper, path=f".::{path}") == "first/runc"


def test_the_links_name_says_which(recorder: Recorder) -> None:
    """Called as seccomp-shim-crun it is crun; --real-runtime outweighs the name."""
    folder = recorder.folder / "first"
    for name in ("runc", "crun", "youki"):
        named(folder, name)
    crun = f"{recorder.bin}/seccomp-shim-crun"
    assert found(recorder, crun, path=str(folder)) == "first/crun"
    assert found(recorder, crun, "--real-runtime", "youki", path=str(folder)) == "first/youki"
    assert found(recorder, crun, "--real-runtime=runc", path=str(folder)) == "first/runc"


def test_the_settings_name_runtimes(recorder: Recorder) -> None:
    """A name is looked up there before PATH; without a name their first one is taken."""
    folder = recorder.folder / "first"
    named(folder, "runc")
    other = named(recorder.folder / "other place", "runc", "other")
    newer = named(recorder.folder / "newer", "crun")
    recorder.configure(f"runtimes:\n  runc: {other}\n  new: {newer}\n")
    path = str(folder)
    assert found(recorder, recorder.wrapper, path=path) == "other/runc"
    assert found(recorder, recorder.wrapper, "--real-runtime", "new", path=path) == "newer/crun"
    assert found(recorder, f"{recorder.bin}/seccomp-shim-runc", path=path) == "other/runc"
    assert not recorder.interpreted()


def test_an_edit_of_the_settings_holds_at_once(tmp_path: Path) -> None:
    """Settings newer than their compiled twin are asked of the interpreter, also a broken one's."""
    need.root()
    recorder = Recorder(tmp_path)
    hookfile.render(Path(recorder.wrapper), name="seccomp-shim-runtime")
    folder = tmp_path / "first"
    named(folder, "runc")
    newer = named(tmp_path / "newer", "runc")
    recorder.configure("on_error: allow\n")
    assert found(recorder, recorder.wrapper, path=str(folder)) == "first/runc"
    recorder.config.write_text(f"runtimes: {{runc: {newer}}}\n")
    os.utime(recorder.config, (2e9, 2e9))  # some shells compare whole seconds
    path = f"{folder}:/usr/bin:/bin"
    assert found(recorder, recorder.wrapper, path=path) == "newer/runc"
    recorder.config.write_text("runtimes: [broken\n")
    assert found(recorder, recorder.wrapper, path=path) == "newer/runc"


@pytest.mark.parametrize("how", ["in place", "by another file"])
def test_an_edit_that_keeps_size_and_time_holds_at_once(tmp_path: Path, how: str) -> None:
    """Times can be set: archives, images and packages do. The text itself is what counts."""
    need.root()
    recorder = Recorder(tmp_path)
    hookfile.render(Path(recorder.wrapper), name="seccomp-shim-runtime")
    for name in ("a", "b"):
        named(tmp_path / name, "runc")
        recorder.config.with_suffix(f".{name}").write_text(
            f"runtimes: {{runc: {tmp_path}/{name}/runc}}"
        )
    path = f"{tmp_path}:/usr/bin:/bin"
    for name in ("a", "b", "a"):
        newer = recorder.config.with_suffix(f".{name}")
        if how == "in place" or not recorder.config.exists():
            recorder.config.write_text(newer.read_text())
        else:
            shutil.copy(newer, tmp_path / "draft")
            os.replace(tmp_path / "draft", recorder.config)
        recorder.config.chmod(0o644)
        os.utime(recorder.config, (1, 1))
        for _ in range(2):
            assert found(recorder, recorder.wrapper, path=path) == f"{name}/runc"


def test_without_its_twin_and_without_an_interpreter_the_defaults_hold(recorder: Recorder) -> None:
    """Whatever is broken, a runtime on PATH is found and nothing is printed beside its output."""
    named(recorder.folder / "first", "runc")
    recorder.config.write_text("runtimes: {runc: /nowhere}\n")
    script(Path(recorder.python), "exit 1")
    assert found(recorder, recorder.wrapper, path=f"{recorder.folder}/first") == "first/runc"


@pytest.mark.parametrize("how", ["link", "copy"])
def test_a_wrapper_that_meets_itself_on_path_goes_on(recorder: Recorder, how: str) -> None:
    """A link or a copy named runc before the real one is passed over, however it was reached."""
    first, second, third = (recorder.folder / name for name in ("first", "second", "third"))
    for folder in (first, second):
        folder.mkdir()
        if how == "link":
            (folder / "runc").symlink_to(recorder.wrapper)
        else:
            shutil.copy2(recorder.wrapper, folder / "runc")
    named(third, "runc")
    path = f"{first}:{second}:{third}"
    assert found(recorder, recorder.wrapper, path=path) == "third/runc"
    assert found(recorder, f"{second}/runc", path=path) == "third/runc"


def test_a_wrapper_that_is_its_own_real_runtime_is_refused(recorder: Recorder) -> None:
    """One line says what to change; nothing loops."""
    link = recorder.folder / "link"
    link.symlink_to(recorder.wrapper)
    for name in (recorder.wrapper, str(link)):
        done = recorder.run(recorder.wrapper, "--real-runtime", name, "state", "c")
        assert (done.returncode, done.stdout) == (1, "")
        assert "is seccomp-shim itself: name the real runtime in" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_loop_through_another_program_ends(recorder: Recorder) -> None:
    """A runtime that calls the wrapper again, and so on, ends with a line after a few rounds."""
    script(Path(recorder.real), f'exec {recorder.wrapper} --real-runtime {recorder.real} "$@"')
    done = recorder.call("state", "c")
    assert done.returncode == 1
    assert "calls itself" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--real-runtime", "/nowhere/runc"], "/nowhere/runc is no executable file"),
        (["--real-runtime", "nosuch"], "no nosuch on PATH"),
        (["--real-runtime"], "--real-runtime needs a value"),
        (["--config"], "--config needs a value"),
    ],
)
def test_a_runtime_that_is_not_there_is_one_line(
    recorder: Recorder, args: list[str], message: str
) -> None:
    """The engine's log and standard error say what is wrong, as the runtime itself would."""
    log = recorder.folder / "log.json"
    more = ["--log", str(log), "--log-format", "json", "create", "c"] if args[1:] else []
    done = recorder.run(recorder.wrapper, "--config", "/none", *args, *more)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    if more:
        line = json.loads(log.read_text())
        assert line["level"] == "error"
        assert f"seccomp-shim: {line['msg'].removeprefix('seccomp-shim: ')}\n" == done.stderr


# --- broken installations --------------------------------------------------------------------


def without_python(recorder: Recorder) -> None:
    """Take the interpreter away."""
    Path(recorder.python).unlink()


def failing_python(recorder: Recorder) -> None:
    """Have an interpreter that cannot start."""
    script(Path(recorder.python), "echo 'Fatal Python error: init_fs_encoding' >&2; exit 1")


def killed_python(recorder: Recorder) -> None:
    """Have an interpreter that dies."""
    script(Path(recorder.python), "kill -SEGV $$")


@pytest.mark.parametrize("on_error", ["allow", "deny"])
@pytest.mark.parametrize("damage", [without_python, failing_python, killed_python])
def test_a_broken_installation_starts_or_refuses_as_the_admin_chose(
    recorder: Recorder, damage: Callable[[Recorder], None], on_error: str
) -> None:
    """Half an upgrade is no reason for the wrong one of both."""
    recorder.configure(f"on_error: {on_error}\n")
    damage(recorder)
    log = recorder.folder / "log"
    args = ["--log", str(log), "--log-format", "json", "create", "c1"]
    done = recorder.call(*args)
    if on_error == "allow":
        assert done.returncode == 0
        assert recorder.received() == args
        assert json.loads(log.read_text())["level"] == "warning"
    else:
        assert done.returncode == 1
        assert recorder.received() is None
        assert "start refused (on_error: deny)" in json.loads(log.read_text())["msg"]
        assert "start refused (on_error: deny)" in done.stderr


@pytest.mark.parametrize(("on_error", "code"), [("allow", 0), ("deny", 1)])
@pytest.mark.parametrize("verb", ["create", "exec"])
def test_code_that_cannot_be_imported(tmp_path: Path, on_error: str, code: int, verb: str) -> None:
    """A package that is not whole counts as broken, for exec as well."""
    need.root()
    recorder = Recorder(tmp_path)
    wrapper = Path(recorder.wrapper)
    hookfile.render(wrapper, name="seccomp-shim-runtime")
    apart(wrapper, recorder.cache)
    packages = str(Path(shim.__file__).resolve().parent.parent)
    broken = tmp_path / "packages/shim/start/wrapper"
    broken.mkdir(parents=True)
    (broken / "main.py").write_text("half of an upgra")
    wrapper.write_text(wrapper.read_text().replace(packages, f"{tmp_path}/packages"))
    recorder.configure(f"on_error: {on_error}\n")
    done = recorder.call(verb, "c1")
    assert done.returncode == code
    assert recorder.received() == ([verb, "c1"] if code == 0 else None)
