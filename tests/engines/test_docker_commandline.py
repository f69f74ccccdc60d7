"""How docker's command lines are read, held against what the real client makes of them."""

import json
import os
import shlex
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import composes
from shim.engines.docker import commandline
from shim.engines.docker.commandline import COMPOSE, GLOBAL, RUN, Asked, find, read, scan
from shim.errors import ShimError
from support import need
from support.engines import DOCKER

# Words that could be taken for something else by who reads carelessly.
_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
_TRICKY = st.sampled_from(
    ["--", "-", "", "=", "run", "--privileged", "--rm", "-it", "--security-opt", "--runtime=x"]
)
WORD = st.one_of(_TRICKY, _TEXT)


class Client:
    """The real client, and all that it asked of a daemon that takes any container."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.bodies: list[dict[str, Any]] = []

    def creates(self, words: list[str]) -> dict[str, Any] | None:
        """Return the container that ``docker WORDS...`` creates; None if it refuses the words."""
        self.bodies.clear()
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.socket.parent)}
        command = [DOCKER, "--host", f"unix://{self.socket}", *words]
        subprocess.run(
            command, env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
        return self.bodies[0] if self.bodies else None


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Yield the real client."""
    need.kernel(os.path.exists(DOCKER), f"{DOCKER} is not installed")
    client = Client(tmp_path_factory.mktemp("d") / "s")

    class Daemon(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, {})

        do_HEAD = do_GET  # noqa: N815 - as the base class looks for it

        def do_POST(self) -> None:
            client.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(201, {"Id": "0" * 64, "Warnings": []})

        def _answer(self, code: int, document: dict[str, Any]) -> None:
            data = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Api-Version", "1.41")
            self.send_header("Ostype", "linux")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def address_string(self) -> str:
            return ""

        def log_message(self, *_: object) -> None:
            pass

    with socketserver.ThreadingUnixStreamServer(str(client.socket), Daemon) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield client
        server.shutdown()


def asked(line: str) -> Asked:
    """Read the command line."""
    words = shlex.split(line)
    found = find(words)
    assert found
    result = read(words, found.begin)
    assert result
    return result


@pytest.mark.parametrize(
    ("line", "command", "verb"),
    [
        ("run bb", "run", 0),
        ("create bb", "create", 0),
        ("container run bb", "run", 0),
        ("-D container create bb", "create", 1),
        ("-H tcp://h run bb", "run", 2),
        ("-Htcp://h -Dl debug --context=c --config D run bb", "run", 6),
        ("--tls --tlscacert ca compose up", "compose", 3),
        ("compose -f a --profile up create", "compose", 0),
        ("compose -pname --ansi never run x up --help", "compose", 0),
        ("build .", "build", 0),
        ("-D image build -t x .", "build", 1),
        ("builder build -", "build", 0),
        ("buildx build .", "buildx", 0),
        ("buildx -D --builder b bake", "buildx", 0),
        ("compose -f a build web", "compose build", 0),
        ("service create --name x bb", "service", 0),
        ("service update --force x", "service", 0),
        ("stack deploy -c a s", "service", 0),
    ],
)
def test_what_starts_containers_is_found(line: str, command: str, verb: int) -> None:
    """Docker's global options are read over as its parser reads them."""
    found = find(shlex.split(line))
    assert found
    assert (found.command, found.verb) == (command, verb)


@pytest.mark.parametrize(
    "line",
    [
        *("", "ps", "exec x run", "container", "container ls", "container --help run", "image run"),
        *("--version run", "--help run", "-H run ps", "-- run", "--context run create-x"),
        *("compose ps", "compose -f up ps", "compose exec run up", "compose --help up", "compose"),
        *("compose up --help", "compose --unheard ps", "-v run", "buildx create"),
        *("build --help", "buildx ls", "buildx", "buildx --unheard build", "builder prune"),
        *("image ls build", "compose build --help", "service ls", "stack ps build", "stack"),
    ],
)
def test_what_starts_none_is_left_alone(line: str) -> None:
    """A verb that is an option's value, another command's word or asks for help is none."""
    assert find(shlex.split(line)) is None


def test_compose_is_told_where_its_command_is() -> None:
    """Its options end there: a further file goes right before it."""
    words = shlex.split("-D compose -fa --file b up --scale up=2")
    found = find(words)
    assert found
    assert words[found.start :] == ["up", "--scale", "up=2"]
    assert found.options == [("file", "a"), ("file", "b")]


@pytest.mark.parametrize(
    ("line", "privileged", "runtime", "security_opt"),
    [
        ("run bb --privileged", False, "", []),
        ("run --privileged bb", True, "", []),
        ("run --privileged=false bb", False, "", []),
        ("run --privileged --privileged=F bb", False, "", []),
        ("run --runtime a --runtime=b bb", False, "b", []),
        ("run -e --privileged bb", False, "", []),
        ("run --security-opt a=b --security-opt=c:d bb", False, "", ["a=b", "c:d"]),
        ("run -itde --runtime -v=/a:/b --name --rm bb", False, "", []),
        ("run -- bb --privileged", False, "", []),
    ],
)  # fmt: skip
def test_what_is_asked_of_the_container(
    line: str, privileged: bool, runtime: str, security_opt: list[str]
) -> None:
    """Values are told from options, the last of several counts, and the image ends them."""
    found = asked(line)
    assert (found.privileged, found.runtime, found.security_opt) == (
        privileged,
        runtime,
        security_opt,
    )


@pytest.mark.parametrize("line", ["run --help bb", "run --help", "create -it --help bb"])
def test_a_call_for_help_asks_for_no_container(line: str) -> None:
    """Such a run starts nothing."""
    words = line.split()
    assert read(words, 1) is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("run --unheard-of bb", "--unheard-of: is no option known here"),
        ("run -iz bb", "-z: is no option known here"),
        ("run -t= bb", "-=: is no option known here"),
        ("run --=x bb", "--: is no option known here"),
        ("run --name", "--name: needs a value"),
        ("run --privileged=maybe bb", "--privileged: neither true nor false: maybe"),
    ],
)
def test_what_cannot_be_told_is_said(line: str, says: str) -> None:
    """No guess is made where docker's parser would do something else, or nothing."""
    with pytest.raises(ShimError) as error:
        read(line.split(), 1)
    assert str(error.value) == says


@pytest.fixture(params=["here", *composes.SUITES])
def program(request: pytest.FixtureRequest) -> str:
    """Return docker's client of this Debian and of newer ones."""
    if request.param != "here":
        return str(composes.client(request.param))
    need.kernel(os.path.exists(DOCKER), f"{DOCKER} is not installed")
    return DOCKER


def options_of(program: str, *words: str) -> commandline.OptionNames:
    """Return the options in a client's own help."""
    command = [program, *words, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return commandline.with_help(commandline.OptionNames("", "", ""), done.stdout)


@pytest.mark.parametrize("verb", ["run", "create"])
def test_the_options_are_those_of_real_clients(program: str, verb: str) -> None:
    """Each option in its help is known here: whether it takes a value, and its letter."""
    there = options_of(program, verb)
    assert len(there.valued) > 70
    assert there.valued <= RUN.valued
    assert there.switches <= RUN.switches
    assert there.short.items() <= RUN.short.items()


def test_the_global_options_are_those_of_real_clients(program: str) -> None:
    """Those that come before the command, likewise."""
    there = options_of(program)
    assert (there.valued, there.switches | {"help"}) == (GLOBAL.valued, GLOBAL.switches)
    assert there.short.items() <= GLOBAL.short.items()


@pytest.mark.parametrize("suite", composes.SUITES)
def test_the_options_are_those_of_real_composes(suite: str) -> None:
    """Those that come before compose's command, likewise."""
    there = options_of(str(composes.plugin(suite)))
    assert len(there.valued) > 5
    assert there.valued <= COMPOSE.valued
    assert there.switches <= COMPOSE.switches
    assert there.short.items() <= COMPOSE.short.items()


def test_a_newer_clients_options_are_learnt_from_its_help() -> None:
    """Switches, values, letters; the old ones stay known."""
    text = (
        "Usage:  docker run [OPTIONS] IMAGE\n\nOptions:\n"
        "      --unheard-of string     Do\n  -z, --zeal             Do --more\n"
        "      --add-host list   Add (host:ip)\n"
        "                                  'private': --not-an option\n"
    )
    options = commandline.with_help(RUN, text)
    words = shlex.split("--unheard-of --rm -itz --name x bb")
    found, end = scan(words, 0, options)
    assert words[end:] == ["bb"]
    assert ("unheard-of", "--rm") in found
    assert "not-an" not in options.valued | options.switches
    assert "net-alias" in options.valued


# @ is any word.
OPTION = st.builds(
    lambda line, word: [part.replace("@", word) for part in line.split(" ")],
    st.sampled_from(
        ["-e A=@", "-eA=@", "-itl b=@", "-l=c=@", "--entrypoint @", "--hostname=@", "-h @", "-w@",
         "--user @", "-i", "-ti", "-t=false", "-it=0", "--rm", "--privileged=0", "--init=true",
         "-P", "--privileged", "--security-opt label=disable", "--runtime other", "--cap-add=ALL",
         "-c5", "-c=5", "-m 64m", "--net none", "--dns-opt x", "--read-only", "--pids-limit -1",
         "--oom-score-adj=-5", "--log-opt --rm=x"]
    ),
    WORD,
)  # fmt: skip


@settings(max_examples=80)
@given(
    st.lists(OPTION, max_size=5),
    st.sampled_from([["bb"], ["bb"], ["bb"], ["--", "bb"], ["--", "--", "bb"], ["-"], [""], []]),
    st.lists(WORD, max_size=4),
)
def test_an_option_put_in_changes_nothing_else(
    client: Client, options: list[list[str]], image: list[str], rest: list[str]
) -> None:
    """The real client creates the same container but for the runtime, or refuses both lines."""
    words = ["create", *(word for option in options for word in option), *image, *rest]
    before = client.creates(words)
    try:
        found = read(words, 1)
    except ShimError:
        assert before is None
        return
    assert found
    put_in = [*words[: found.end], "--runtime", "put-in", *words[found.end :]]
    after = client.creates(put_in)
    if before is None:
        assert after is None
        return
    assert after
    host = before["HostConfig"]
    assert found.runtime == host.pop("Runtime", "")
    assert found.privileged == host["Privileged"]
    assert found.security_opt == (host["SecurityOpt"] or [])
    assert after["HostConfig"].pop("Runtime") == "put-in"
    assert after == before


def test_every_letter_stands_for_one_option() -> None:
    """No option is both a switch and one with a value, and every letter stands for a known one."""
    for options in (COMPOSE, GLOBAL, RUN):
        assert options.valued.isdisjoint(options.switches)
        assert set(options.short.values()) <= options.valued | options.switches
