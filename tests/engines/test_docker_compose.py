"""``seccomp-shim docker compose`` with real composes and a real dockerd."""

import json
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import composes
from engines.shimmed import CALL, RUNTIME, Shimmed, said, shimmed
from shim.engines.docker import builtin, commandline, compose
from shim.errors import ShimError
from support import image
from support.containers import ENOSYS, EPERM, TEST_SYSCALL

PLAIN: dict[str, Any] = {"image": image.NAME, "command": CALL, "network_mode": "none"}
UNCONFINED = PLAIN | {"security_opt": ["seccomp:unconfined"]}


@pytest.fixture(scope="module")
def started() -> Iterator[Shimmed]:
    """Start the daemon once for all."""
    with shimmed() as shim:
        yield shim


@pytest.fixture(params=composes.SUITES)
def every(started: Shimmed, request: pytest.FixtureRequest) -> Shimmed:
    """Return each of the composes, and a daemon that has the wrapper registered."""
    composes.install(request.param, started.docker.folder / "client")
    started.configure()
    return started


@pytest.fixture
def shim(started: Shimmed) -> Shimmed:
    """Return the oldest of them."""
    composes.install(composes.SUITES[0], started.docker.folder / "client")
    started.configure()
    return started


def write(folder: Path, name: str = "compose.yaml", **services: dict[str, Any]) -> Path:
    """Write a compose file; JSON is YAML."""
    path = folder / name
    path.write_text(json.dumps({"services": services}))
    return path


def words_of(shim: Shimmed, folder: Path, *words: str) -> tuple[list[str], str]:
    """Return the words that docker would get by a dry run, and what was said."""
    done = shim("--dry-run", "compose", *words, folder=folder)
    line = done.stdout.splitlines()[0]
    return shlex.split(line)[1:], said(done)


def added(shim: Shimmed, folder: Path, *words: str) -> dict[str, Any]:
    """Return the services in the file that a dry run shows."""
    done = shim("--dry-run", "compose", *words, folder=folder)
    lines = done.stdout.splitlines()[1:]
    assert lines, said(done)
    text = "".join(line[1:] for line in lines[3:] if line.startswith("+"))
    services: dict[str, Any] = json.loads(text)["services"]
    return services


def outcomes(shim: Shimmed, folder: Path, service: str) -> dict[int, int]:
    """Return what the calls of a service's container ended with."""
    return image.outcomes(shim.docker("logs", f"{folder.name}-{service}-1").stdout)


@pytest.fixture
def folder(started: Shimmed, tmp_path: Path) -> Iterator[Path]:
    """Yield a directory for a project, which is taken down in the end."""
    folder = tmp_path / "project"
    folder.mkdir()
    yield folder
    for ident in started.docker("ps", "-aq").stdout.split():
        started.docker("rm", "--force", ident)


def test_up_covers_each_service_that_needs_it(every: Shimmed, folder: Path) -> None:
    """Each by what it asked for; one line says which; compose itself goes on as ever."""
    shim = every
    write(folder, web=PLAIN, db=PLAIN, free=UNCONFINED, own=PLAIN | {"runtime": "runc"})
    assert set(added(shim, folder, "up")) == {"db", "web"}
    done = shim("compose", "up", folder=folder)
    assert f": db, web: for test-syscall-{TEST_SYSCALL}" in said(done)
    assert outcomes(shim, folder, "web") == outcomes(shim, folder, "db") == {TEST_SYSCALL: ENOSYS}
    assert outcomes(shim, folder, "free") == {TEST_SYSCALL: ENOSYS}
    assert outcomes(shim, folder, "own") == {TEST_SYSCALL: EPERM}
    assert len([line for line in shim.log() if line["event"] == "requested"]) == 2
    # The same again changes nothing: compose sees the configuration that it knows.
    again = shim("compose", "up", "--no-start", folder=folder)
    assert "Recreate" not in again.stderr
    assert shim("compose", "ps", "-aq", folder=folder).stdout.count("\n") == 4
    shim("compose", "down", folder=folder)
    assert shim.docker("ps", "-aq").stdout == ""


def test_run_and_create_are_covered(every: Shimmed, folder: Path) -> None:
    """A service that is named is started whatever its profile; what follows it is not read."""
    shim = every
    write(folder, job=PLAIN | {"profiles": ["seldom"]}, web=PLAIN)
    done = shim("compose", "run", "--rm", "job", *CALL, folder=folder)
    assert image.outcomes(done.stdout) == {TEST_SYSCALL: ENOSYS}
    shim("compose", "create", folder=folder)
    made = shim.docker("inspect", "--format", "{{.HostConfig.Runtime}}", "project-web-1").stdout
    assert made == f"{RUNTIME}\n"


def test_the_profile_of_a_service_is_augmented(started: Shimmed, folder: Path) -> None:
    """Its relative path is the project's, and its other options stay before the one added."""
    composes.install("trixie", started.docker.folder / "client")
    started.configure(wrapper=False, default="capture", test_syscall=False)
    own, _ = builtin.profile("20.10.24")
    assert own
    (folder / "a$b.json").write_text(json.dumps(own.tree))
    options = ["no-new-privileges", "seccomp=a$$b.json"]
    write(folder, web=PLAIN | {"security_opt": options}, bare=PLAIN, free=UNCONFINED)
    (folder / "below").mkdir()
    done = started("--when", "always", "compose", "create", folder=folder / "below")
    assert ": bare, web: uretprobe allowed by name" in said(done)
    text = started.docker(
        "inspect", "--format", "{{json .HostConfig.SecurityOpt}}", "project-web-1"
    ).stdout
    first, before, after = json.loads(text)
    assert first == "no-new-privileges"
    rule, *rest = json.loads(after.removeprefix("seccomp="))["syscalls"]
    assert rule["names"] == ["uretprobe"]
    assert rest == json.loads(before.removeprefix("seccomp="))["syscalls"]


def test_what_cannot_be_helped_is_said(started: Shimmed, folder: Path) -> None:
    """The services that are not covered, by name."""
    composes.install("trixie", started.docker.folder / "client")
    started.configure(wrapper=False)
    write(folder, web=PLAIN, free=UNCONFINED)
    words, line = words_of(started, folder, "up")
    assert words == ["compose", "up"]
    assert line.startswith(
        "docker compose up: web goes as it is: no profile can name test-syscall-"
    )


def test_the_files_that_compose_would_read_are_named(every: Shimmed, folder: Path) -> None:
    """Found as it finds them, from below, with the override beside them; ours is the last."""
    main = write(folder, "docker-compose.yml", web=PLAIN)
    override = write(folder, "compose.override.yaml", more=PLAIN)
    (folder / "a/b").mkdir(parents=True)
    words, _ = words_of(every, folder / "a/b", "-p", "x", "up", "-d")
    assert words[:3] == ["compose", "-p", "x"]
    assert words[3:7] == ["-f", str(main), "-f", str(override)]
    assert words[7] == "-f"
    assert words[9:] == ["up", "-d"]
    assert set(added(every, folder, "up")) == {"web", "more"}


def test_files_that_are_named_stay_named(every: Shimmed, folder: Path) -> None:
    """Ours is added behind them."""
    write(folder, "compose.yaml", unused=PLAIN)
    write(folder, "one.yaml", web=PLAIN)
    write(folder, "two.yaml", web={"privileged": True}, db=PLAIN)
    words, _ = words_of(every, folder, "-f", "one.yaml", "--file=two.yaml", "up")
    assert words[:4] == ["compose", "-f", "one.yaml", "--file=two.yaml"]
    assert words[4] == "-f"
    assert words[6:] == ["up"]
    assert set(added(every, folder, "-fone.yaml", "-f", "two.yaml", "up")) == {"db"}


@pytest.mark.parametrize("where", ["environment", ".env", "env-file"])
def test_files_that_the_environment_names(shim: Shimmed, folder: Path, where: str) -> None:
    """COMPOSE_FILE, in the environment or in the project's .env."""
    one = write(folder, "one.yaml", web=PLAIN)
    two = write(folder, "two.yaml", db=PLAIN)
    options, variables = [], {}
    if where == "environment":
        variables = {"COMPOSE_FILE": "one.yaml,two.yaml", "COMPOSE_PATH_SEPARATOR": ","}
    else:
        name = ".env" if where == ".env" else "other.env"
        (folder / name).write_text(
            "# COMPOSE_FILE=x\nA=1\nexport COMPOSE_FILE='one.yaml:two.yaml'\n"
        )
        options = ["--env-file", name] if where == "env-file" else []
    done = shim("--dry-run", "compose", *options, "up", folder=folder, environment=variables)
    words = shlex.split(done.stdout.splitlines()[0])[1:]
    assert words[:-3] == ["compose", *options, "-f", str(one), "-f", str(two)]


def test_another_project_is_never_made(started: Shimmed, folder: Path) -> None:
    """Newer composes read the .env of a directory below only where no file is named."""
    composes.install("sid", started.docker.folder / "client")
    started.configure()
    write(folder, "compose.yaml", web=PLAIN | {"environment": {"A": "${A}"}})
    (folder / ".env").write_text("A=above\n")
    (folder / "below").mkdir()
    (folder / "below/.env").write_text("A=below\n")
    words, line = words_of(started, folder / "below", "up")
    assert words == ["compose", "up"]
    assert line.endswith("with one more file compose would make another project of it")
    assert words_of(started, folder, "up")[0][:2] == ["compose", "-f"]


@pytest.mark.parametrize(
    ("content", "words", "reason"),
    [
        ("services: [", ["up"], "compose config failed: "),
        (None, ["up"], "compose finds no file here"),
        ("services: {}", ["-f", "-", "up"], "a compose file from standard input can be read once"),
        ("services: {}", ["--unheard-of", "up"], "--unheard-of: is no option known here"),
    ],
)
def test_what_is_not_understood_goes_as_it_is(
    shim: Shimmed, folder: Path, content: str | None, words: list[str], reason: str
) -> None:
    """One line says why; compose is left to say what is wrong."""
    if content is not None:
        (folder / "compose.yaml").write_text(content)
    got, line = words_of(shim, folder, *words)
    assert got == ["compose", *words]
    assert reason in line


def test_where_no_service_needs_anything_compose_is_not_asked(shim: Shimmed, folder: Path) -> None:
    """Not even a file that it cannot read is looked at."""
    shim.configure(default=RUNTIME, test_syscall=False)
    (folder / "compose.yaml").write_text("services: [")
    assert words_of(shim, folder, "up") == (["compose", "up"], "")


def test_without_compose_docker_says_so(started: Shimmed, folder: Path) -> None:
    """A client without the plugin refuses as ever."""
    (started.docker.folder / "client/cli-plugins/docker-compose").unlink(missing_ok=True)
    write(folder, web=PLAIN)
    done = started("compose", "up", folder=folder, code=1)
    assert "docker: 'compose' is not a docker command." in done.stderr


@given(
    st.sets(st.sampled_from(compose.FILES), min_size=1), st.sets(st.sampled_from(compose.OVERRIDES))
)
def test_the_first_of_each_kind_is_found(main: set[str], overrides: set[str]) -> None:
    """In the order of compose's own lists, one of each, from the directory or below it."""
    with tempfile.TemporaryDirectory() as folder:
        below = Path(folder, "a/b")
        below.mkdir(parents=True)
        (below / compose.OVERRIDES[0]).touch()  # without a main file beside it: none
        for name in main | overrides:
            Path(folder, name).touch()
        expected = [min(main, key=compose.FILES.index)]
        if overrides:
            expected.append(min(overrides, key=compose.OVERRIDES.index))
        found = compose.files([], {}, str(below))
        assert found == [os.path.join(folder, name) for name in expected]


@pytest.mark.parametrize(
    "text", ["COMPOSE_FILE=${A}.yaml", "COMPOSE_FILE=a\\\\b", "COMPOSE_FILE='a"]
)
def test_an_intricate_env_file_is_not_guessed_at(tmp_path: Path, text: str) -> None:
    """What would take compose's own parser is left to it."""
    (tmp_path / ".env").write_text(text)
    with pytest.raises(ShimError, match="COMPOSE_FILE is not a plain value"):
        compose.files([], {}, str(tmp_path))


def test_compose_commands_that_make_no_containers_pass_through() -> None:
    """They are not even looked at."""
    for words in (["compose", "ps"], ["compose", "-f", "up", "logs"], ["compose", "exec", "up"]):
        assert commandline.find(words) is None
